#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace kumo::rocksdb {

// A regular file opened for positioned reads. Its size is the one at opening: what another process
// appends later is not seen, so a reader of a live file always comes to an end.
class ReadOnlyFile {
 public:
  explicit ReadOnlyFile(const std::filesystem::path& path);
  ~ReadOnlyFile();
  ReadOnlyFile(ReadOnlyFile&& other) noexcept;
  ReadOnlyFile& operator=(ReadOnlyFile&&) = delete;
  ReadOnlyFile(const ReadOnlyFile&) = delete;
  ReadOnlyFile& operator=(const ReadOnlyFile&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  // Reads up to `count` bytes; fewer only at the end of the file.
  std::size_t read_at(std::uint64_t offset, char* out, std::size_t count) const;

  // Reads `count` bytes, or throws FormatError where the file ends before them.
  [[nodiscard]] std::string read_exactly(std::uint64_t offset, std::size_t count) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace kumo::rocksdb
