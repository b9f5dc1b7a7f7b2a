#include "rocksdb/path_ids.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "checksum/crc32c.hpp"
#include "rocksdb/block.hpp"
#include "rocksdb/coding.hpp"
#include "rocksdb/error.hpp"
#include "rocksdb/file.hpp"
#include "rocksdb/log_reader.hpp"
#include "rocksdb/version_edit.hpp"

namespace kumo::rocksdb {
namespace {

constexpr std::size_t kHeader = 7;
constexpr std::size_t kType = 6;  // the checksum covers the type and the data

class Writer {
 public:
  explicit Writer(const std::filesystem::path& path)
      : path_(path.string()), descriptor_(::open(path_.c_str(), O_WRONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) throw FileError(errno, path_);
  }
  ~Writer() { ::close(descriptor_); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void write_at(std::uint64_t offset, std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t done =
          ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (done < 0) {
        if (errno == EINTR) continue;
        throw FileError(errno, path_);
      }
      bytes.remove_prefix(static_cast<std::size_t>(done));
      offset += static_cast<std::uint64_t>(done);
    }
  }

 private:
  std::string path_;
  int descriptor_;
};

// A piece of a record: where its data begins in the file and in the record.
struct Piece {
  std::uint64_t file_offset = 0;
  std::uint64_t record_offset = 0;
  std::size_t size = 0;
};

void clear_in_piece(const ReadOnlyFile& file, const Writer& writer, const Piece& piece,
                    const std::vector<std::uint64_t>& offsets) {
  const std::uint64_t end = piece.record_offset + piece.size;
  std::string bytes;
  for (const std::uint64_t offset : offsets) {
    if (offset < piece.record_offset || offset >= end) continue;
    if (bytes.empty()) {
      bytes = file.read_exactly(piece.file_offset - kHeader, kHeader + piece.size);
    }
    bytes[kHeader + static_cast<std::size_t>(offset - piece.record_offset)] = '\0';
  }
  if (bytes.empty()) return;
  const std::uint32_t crc = mask_crc(checksum::crc32c(&bytes[kType], bytes.size() - kType));
  for (unsigned i = 0; i < 4; ++i) bytes[i] = static_cast<char>((crc >> (8 * i)) & 0xff);
  writer.write_at(piece.file_offset - kHeader, bytes);
}

}  // namespace

std::uint64_t clear_path_ids(const std::filesystem::path& path) {
  const ReadOnlyFile file(path);
  const Writer writer(path);
  LogReader reader(file);
  VersionEditDecoder decoder;
  LogFragment fragment;
  std::vector<Piece> pieces;
  std::uint64_t cleared = 0;
  try {
    while (reader.next(fragment)) {
      if (fragment.first) {
        decoder.begin();
        pieces.clear();
      }
      const Piece* before = pieces.empty() ? nullptr : &pieces.back();
      const std::uint64_t begin = before == nullptr ? 0 : before->record_offset + before->size;
      pieces.push_back({fragment.data_offset, begin, fragment.data.size()});
      decoder.feed(fragment.data);
      if (!fragment.last) continue;
      const std::vector<std::uint64_t> offsets = decoder.finish().path_id_offsets;
      for (const Piece& piece : pieces) clear_in_piece(file, writer, piece, offsets);
      cleared += offsets.size();
    }
  } catch (const DecodeError& error) {
    throw FormatError(file.path(), fragment.record_offset, error.what());
  }
  if (reader.tail() != LogTail::kClean) {
    throw FormatError(file.path(), reader.tail_offset(), reader.tail_problem());
  }
  return cleared;
}

}  // namespace kumo::rocksdb
