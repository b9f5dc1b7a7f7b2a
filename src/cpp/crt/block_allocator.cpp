#include "crt/block_allocator.hpp"

#include <array>
#include <cstddef>
#include <mutex>

namespace kumo::crt {
namespace {

constexpr std::size_t kStep = 65'536;  // sizes of large blocks are rounded up to a multiple of it
constexpr std::size_t kKinds = 10;     // up to a message of runtime.cpp with what belongs to it
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kKeptAtMost = 0;  // it has to see what is used after it was freed
#else
constexpr std::size_t kKeptAtMost = std::size_t{8} << 20;
#endif

// In front of each block.
struct alignas(std::max_align_t) Head {
  std::size_t kind;  // its size in steps; 0: a small one, or one that is too large to keep
  Head* next;        // while it is kept
};

class Blocks {
 public:
  static Blocks& instance() {
    static Blocks* blocks = new Blocks();  // leaked: what was allocated may be freed very late
    return *blocks;
  }

  void* acquire(std::size_t size) {
    const std::size_t whole = size + sizeof(Head);
    if (whole < size) return nullptr;
    std::size_t kind = whole < kStep ? 0 : (whole + kStep - 1) / kStep;
    if (kind >= kKinds) kind = 0;
    Head* head = kind > 0 ? take(kind) : nullptr;
    if (head == nullptr) {
      head = static_cast<Head*>(
          aws_mem_acquire(aws_default_allocator(), kind > 0 ? kind * kStep : whole));
      head->kind = kind;
    }
    return head + 1;
  }

  void release(void* block) {
    Head* head = static_cast<Head*>(block) - 1;
    if (head->kind > 0 && keep(head)) return;
    aws_mem_release(aws_default_allocator(), head);
  }

 private:
  Head* take(std::size_t kind) {
    std::lock_guard lock(mutex_);
    Head* head = kept_[kind];
    if (head == nullptr) return nullptr;
    kept_[kind] = head->next;
    bytes_ -= kind * kStep;
    return head;
  }

  bool keep(Head* head) {
    std::lock_guard lock(mutex_);
    if (bytes_ + head->kind * kStep > kKeptAtMost) return false;
    head->next = kept_[head->kind];
    kept_[head->kind] = head;
    bytes_ += head->kind * kStep;
    return true;
  }

  std::mutex mutex_;
  std::array<Head*, kKinds> kept_{};
  std::size_t bytes_ = 0;
};

}  // namespace

aws_allocator* block_allocator() noexcept {
  static aws_allocator allocator = [] {
    aws_allocator made{};
    made.mem_acquire = [](aws_allocator*, std::size_t size) {
      return Blocks::instance().acquire(size);
    };
    made.mem_release = [](aws_allocator*, void* block) { Blocks::instance().release(block); };
    return made;
  }();
  return &allocator;
}

}  // namespace kumo::crt
