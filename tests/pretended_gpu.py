"""A GPU that is none: finds mixed devices where there is no GPU, with real numbers.

FakeTensorMode has no values, and its fake CUDA tensors cannot go backward without a driver. Here
tensors say that they are on ``cuda``, compute on the CPU, and refuse to meet tensors of the CPU as
CUDA's do; so whatever reads values (compensation, packing, boxes) runs too.
"""

from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

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
    tensors = list(_tensors((*args, *kwargs.values())))
    wrappers = {id(x.held): x for x in tensors if isinstance(x, PretendedTensor)}
    on_gpu = bool(wrappers)
    if on_gpu:
        _refuse_mixed(function, args, tensors)
    if function.overloadpacket is _aten.copy_:
        on_gpu = isinstance(args[0], PretendedTensor)
    own = {key: _held(value) for key, value in kwargs.items()}
    if kwargs.get("device") is not None:
        own["device"] = "cpu"
        on_gpu = torch.device(kwargs["device"]).type in (DEVICE.type, "meta")  # meta: x.to(y)
    generator = kwargs.get("generator")
    if on_gpu and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{function} on {DEVICE} wants a generator of that device")
    output = function(*map(_held, args), **own)
    if on_gpu and torch.Tag.inplace_view in function.tags:
        with no_dispatch():
            function(*args, **kwargs)  # the wrapper's own shape
    return _pretended(output, wrappers) if on_gpu else output


def _tensors(values):
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _held(value):
    if isinstance(value, (list, tuple)):
        return type(value)(map(_held, value))
    return value.held if isinstance(value, PretendedTensor) else value


def _pretended(value, wrappers):
    """What is computed in place of an argument is that argument."""
    if isinstance(value, (list, tuple)):
        return type(value)(_pretended(each, wrappers) for each in value)
    if not isinstance(value, Tensor):
        return value
    return wrappers[id(value)] if id(value) in wrappers else PretendedTensor(value)


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
