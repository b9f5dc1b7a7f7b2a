#include "crt/error.hpp"

#include <aws/common/error.h>

namespace kumo::crt {

std::string error_name(int code) { return aws_error_name(code); }
std::string error_text(int code) { return aws_error_str(code); }

Error::Error(int code, const std::string& doing)
    : std::runtime_error(doing + ": " + error_text(code) + " (" + error_name(code) + ")"),
      code_(code) {}

void throw_last(const char* doing) {
  const int code = aws_last_error();
  throw Error(code != 0 ? code : AWS_ERROR_UNKNOWN, doing);
}

}  // namespace kumo::crt
