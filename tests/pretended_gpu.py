"""A GPU that is none: finds mixed devices where there is no GPU, with real numbers.

FakeTensorMode has no values, and its fake CUDA tensors cannot go backward without a driver. Here
tensors say that they are on ``cuda``, compute on the CPU, and refuse to meet tensors of the CPU as
CUDA's do; so whatever reads values (compensation, packing, boxes) runs too.
"""

from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

__all__ = ["DEVICE", "PretendedGPU", "PretendedTensor"]

DEVICE = torch.device("cuda", 0)
_aten = torch.ops.aten
_MAY_MIX = (_aten.copy_, _aten._to_copy)
_CPU_INDICES = (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_)
_NO_NUMBERS = (_aten.cat, _aten.stack)  # where a CPU tensor without dimensions is none either


class PretendedTensor(Tensor):
    """Says that it is on the GPU; ``held`` has its values. PyTorch itself takes it for meta."""

    @staticmethod
    def __new__(cls, held: Tensor):
        tensor = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device="meta"
        )
        tensor.held = held
        return tensor

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def data_ptr(self):
        return self.held.data_ptr()

    def numpy(self, *, force=False):
        if not force:
            raise TypeError(f"{DEVICE} tensors cannot become NumPy arrays; copy them to the CPU")
        return self.held.numpy(force=True)

    def tolist(self):
        return self.held.tolist()

    def __repr__(self):
        return f"{self.held!r} on {DEVICE}"

    def __format__(self, form):
        return format(self.held, form)

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            memo[id(self)] = copied = PretendedTensor(self.detach().held.clone())
            copied.requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copied._is_param = True
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        return self.detach().held.clone().__reduce_ex__(protocol)  # as map_location="cpu" reads it

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class PretendedGPU(TorchDispatchMode):
    """Within it, tensors can be made on ``cuda`` and moved there."""

    def __enter__(self):
        self._stack = ExitStack()
        self._stack.enter_context(patch("torch.cuda._lazy_init"))
        self._stack.enter_context(patch("torch.cuda.get_rng_state", lambda *_: torch.empty(0)))
        self._stack.enter_context(patch("torch.cuda.set_rng_state"))
        # torch.tensor(..., device="cuda:0") is made on the CPU and then moved, as FakeTensorMode
        # has it.
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._stack.close()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function, args, kwargs):
    leaves, spec = tree_flatten((args, kwargs))
    tensors = [each for each in leaves if isinstance(each, Tensor)]
    on_gpu = any(isinstance(each, PretendedTensor) for each in tensors)
    if on_gpu:
        _refuse_mixed(function, args, tensors)
    if function.overloadpacket is _aten.copy_:
        on_gpu = isinstance(args[0], PretendedTensor)
    target = kwargs.get("device")
    if target is not None:
        on_gpu = torch.device(target).type in (DEVICE.type, "meta")  # x.to(y) asks for meta
    generator = kwargs.get("generator")
    if on_gpu and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{function} on {DEVICE} wants a generator of that device")
    held = [each.held if isinstance(each, PretendedTensor) else each for each in leaves]
    own_args, own_kwargs = tree_unflatten(held, spec)
    if target is not None:
        own_kwargs["device"] = "cpu"
    output = function(*own_args, **own_kwargs)
    if not on_gpu:
        return output
    output = tree_map(lambda x: PretendedTensor(x) if isinstance(x, Tensor) else x, output)
    return return_and_correct_aliasing(function, args, kwargs, output)


def _refuse_mixed(function, args, tensors):
    """Raise what CUDA raises for tensors of both devices, of which a few operators take care."""
    packet, first = function.overloadpacket, args[0] if args else None
    if packet in _MAY_MIX:
        return
    if packet in _CPU_INDICES and isinstance(first, PretendedTensor):
        tensors = [first, *args[2:3]]  # without the indices
    on_cpu = [each for each in tensors if not isinstance(each, PretendedTensor)]
    are_numbers = packet not in _NO_NUMBERS and all(each.dim() == 0 for each in on_cpu)
    writes_on_cpu = function._schema.is_mutable and any(first is each for each in on_cpu)
    if on_cpu and (writes_on_cpu or not are_numbers):
        raise RuntimeError(
            f"{function}: expected all tensors to be on the same device, found {DEVICE} and cpu"
        )
