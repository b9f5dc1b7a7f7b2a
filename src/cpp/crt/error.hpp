#pragma once

#include <stdexcept>
#include <string>

namespace kumo::crt {

// An error raised by the AWS Common Runtime, with its code and symbolic name.
class Error : public std::runtime_error {
 public:
  Error(int code, const std::string& doing);

  [[nodiscard]] int code() const noexcept { return code_; }

 private:
  int code_;
};

[[nodiscard]] std::string error_name(int code);
[[nodiscard]] std::string error_text(int code);

// Throws the thread's last CRT error, saying what was being done.
[[noreturn]] void throw_last(const char* doing);

inline void check(int result, const char* doing) {
  if (result != 0) throw_last(doing);
}

template <typename T>
T* check_ptr(T* pointer, const char* doing) {
  if (pointer == nullptr) throw_last(doing);
  return pointer;
}

}  // namespace kumo::crt
