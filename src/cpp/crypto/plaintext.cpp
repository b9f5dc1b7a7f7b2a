#include "crypto/plaintext.hpp"

#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace kumo::crypto {

const std::uint8_t* Plaintext::at(std::uint64_t offset, std::size_t count,
                                  std::uint8_t* scratch) const {
  if (fd_ < 0) return data_ + offset;
  std::size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(fd_, scratch + done, count - done, static_cast<off_t>(offset + done));
    if (got > 0) {
      done += static_cast<std::size_t>(got);
    } else if (got == 0 || errno != EINTR) {
      throw std::system_error(
          got == 0 ? EIO : errno, std::generic_category(),
          got == 0 ? "the file became shorter while it was being read" : "reading the file");
    }
  }
  return scratch;
}

}  // namespace kumo::crypto
