// Work on several threads.
#pragma once
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ptq {

// Threads that wait for work; a process that was forked gets new ones.
class Pool {
 public:
  void run(int threads, const std::function<void()>& work) {
    if (threads < 2) return work();
    std::lock_guard<std::mutex> one_at_a_time(turn_);
    std::unique_lock<std::mutex> lock(mutex_);
    while ((int)threads_.size() < threads - 1) {
      int place = threads_.size();
      threads_.emplace_back([this, place] { serve(place); });
    }
    work_ = &work;
    wanted_ = busy_ = threads - 1;
    round_++;
    lock.unlock();
    start_.notify_all();
    work();
    lock.lock();
    end_.wait(lock, [this] { return !busy_; });
  }
  static Pool& instance() {
    static std::mutex guard;
    static Pool* pool;
    static pid_t owner;
    std::lock_guard<std::mutex> lock(guard);
    if (!pool || owner != getpid()) pool = new Pool, owner = getpid();
    return *pool;
  }

 private:
  void serve(int place) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (long seen = 0;;) {
      start_.wait(lock, [&] { return round_ != seen && place < wanted_; });
      seen = round_;
      lock.unlock();
      (*work_)();
      lock.lock();
      if (!--busy_) end_.notify_one();
    }
  }
  std::mutex turn_, mutex_;
  std::condition_variable start_, end_;
  std::vector<std::thread> threads_;
  const std::function<void()>* work_ = nullptr;
  int wanted_ = 0, busy_ = 0;
  long round_ = 0;
};

// Calls work(i) for each i below count on several threads, which take neighbours together.
template <class Work> void in_parallel(int count, int threads, const Work& work) {
  std::atomic<int> next{0};
  int some = std::min(std::max(count / (8 * threads), 1), 16);
  std::function<void()> loop = [&] {
    for (int i; (i = next.fetch_add(some)) < count;) {
      for (int j = i; j < std::min(i + some, count); j++) work(j);
    }
  };
  Pool::instance().run(std::min(threads, count), loop);
}

}  // namespace ptq
