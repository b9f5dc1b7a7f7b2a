#pragma once

#include <pybind11/pybind11.h>

#include <utility>

namespace kumo::bind {

// Holds the buffer-protocol view of a Python object. Make and destroy it with the GIL.
class BufferView {
 public:
  BufferView() = default;

  // `flags` as for PyObject_GetBuffer; PyBUF_SIMPLE demands C-contiguous memory. Throws what
  // the object raises (TypeError, BufferError, ValueError for a released memoryview).
  BufferView(pybind11::handle object, int flags) {
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw pybind11::error_already_set();
    held_ = true;
  }

  BufferView(BufferView&& other) noexcept
      : view_(other.view_), held_(std::exchange(other.held_, false)) {
    // bytes-like objects that keep `shape` inside the Py_buffer itself (ndim 1, no shape array)
    // are the only ones whose view would not survive the move.
    if (view_.shape == &other.view_.len) view_.shape = &view_.len;
    if (view_.strides == &other.view_.itemsize) view_.strides = &view_.itemsize;
  }
  BufferView& operator=(BufferView&& other) noexcept {
    if (this != &other) {
      this->~BufferView();
      new (this) BufferView(std::move(other));
    }
    return *this;
  }
  BufferView(const BufferView&) = delete;
  BufferView& operator=(const BufferView&) = delete;
  ~BufferView() {
    if (held_) PyBuffer_Release(&view_);
  }

  explicit operator bool() const noexcept { return held_; }
  [[nodiscard]] void* data() const noexcept { return view_.buf; }
  [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(view_.len); }

 private:
  Py_buffer view_{};
  bool held_ = false;
};

}  // namespace kumo::bind
