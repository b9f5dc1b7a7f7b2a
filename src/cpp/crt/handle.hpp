#pragma once

#include <aws/common/byte_buf.h>

#include <memory>
#include <string_view>

namespace kumo::crt {

// Owns one reference to a CRT object; `Release` is the C function that drops it. (For a structure
// on the stack: the one that cleans it up.)
template <typename T, auto Release>
struct Releaser {
  void operator()(T* pointer) const noexcept { (void)Release(pointer); }
};

template <typename T, auto Release>
using Handle = std::unique_ptr<T, Releaser<T, Release>>;

inline aws_byte_cursor cursor(std::string_view text) noexcept {
  return aws_byte_cursor_from_array(text.data(), text.size());
}

inline std::string_view view(const aws_byte_cursor& cursor) noexcept {
  return {reinterpret_cast<const char*>(cursor.ptr), cursor.len};
}

}  // namespace kumo::crt
