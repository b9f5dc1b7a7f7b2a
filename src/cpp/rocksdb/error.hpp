#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <system_error>

namespace kumo::rocksdb {

// A file that is not what its name says, is damaged, or is of a version this reader does not know.
class FormatError : public std::runtime_error {
 public:
  FormatError(const std::string& path, std::uint64_t offset, const std::string& problem)
      : std::runtime_error(path + ": offset " + std::to_string(offset) + ": " + problem),
        path_(path),
        offset_(offset) {}

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }

 private:
  std::string path_;
  std::uint64_t offset_;
};

// The operating system refused: the file is missing, unreadable, not a regular file.
class FileError : public std::system_error {
 public:
  FileError(int error, const std::string& path)
      : std::system_error(error, std::generic_category(), path), path_(path) {}

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

}  // namespace kumo::rocksdb
