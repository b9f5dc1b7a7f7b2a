#include "rocksdb/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "rocksdb/error.hpp"

namespace kumo::rocksdb {

ReadOnlyFile::ReadOnlyFile(const std::filesystem::path& path) : path_(path.string()) {
  // O_NONBLOCK: opening a FIFO must fail below instead of waiting for its writer.
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) throw FileError(errno, path_);
  struct stat info{};
  int error = 0;
  if (::fstat(descriptor_, &info) != 0) {
    error = errno;
  } else if (S_ISDIR(info.st_mode)) {
    error = EISDIR;
  } else if (!S_ISREG(info.st_mode)) {
    error = EINVAL;
  }
  if (error != 0) {
    ::close(descriptor_);
    throw FileError(error, path_);
  }
  size_ = static_cast<std::uint64_t>(info.st_size);
}

ReadOnlyFile::~ReadOnlyFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

ReadOnlyFile::ReadOnlyFile(ReadOnlyFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_) {}

std::size_t ReadOnlyFile::read_at(std::uint64_t offset, char* out, std::size_t count) const {
  if (offset >= size_) return 0;
  if (count > size_ - offset) count = static_cast<std::size_t>(size_ - offset);
  std::size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(descriptor_, out + done, count - done, static_cast<off_t>(offset + done));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw FileError(errno, path_);
    }
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

std::string ReadOnlyFile::read_exactly(std::uint64_t offset, std::size_t count) const {
  // Checked before the allocation: `count` often comes from the file itself.
  if (offset > size_ || count > size_ - offset) {
    throw FormatError(path_, offset,
                      "the file has " + std::to_string(size_) + " bytes; " + std::to_string(count) +
                          " were expected here");
  }
  std::string bytes(count, '\0');
  if (read_at(offset, bytes.data(), count) != count) {
    throw FormatError(path_, offset, "the file became shorter while it was read");
  }
  return bytes;
}

}  // namespace kumo::rocksdb
