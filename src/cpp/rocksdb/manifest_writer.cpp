#include "rocksdb/manifest_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>

#include "checksum/crc32c.hpp"
#include "rocksdb/block.hpp"
#include "rocksdb/error.hpp"
#include "rocksdb/file.hpp"

namespace kumo::rocksdb {
namespace {

constexpr std::size_t kBlock = 32768;
constexpr std::size_t kHeader = 7;
constexpr std::size_t kCopyBlock = std::size_t{1} << 20;

// Tags of version edits, as version_edit.cpp reads them.
enum Tag : std::uint16_t { kLogNumber = 2, kDeletedFile = 6, kColumnFamily = 200, kDrop = 202 };
enum RecordType : std::uint8_t { kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

void put_varint(std::string& out, std::uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>((value & 0x7f) | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

// A new file, written from front to end.
class NewFile {
 public:
  explicit NewFile(const std::filesystem::path& path)
      : path_(path.string()),
        descriptor_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) throw FileError(errno, path_);
  }
  ~NewFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void append(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t done = ::write(descriptor_, bytes.data(), bytes.size());
      if (done < 0) {
        if (errno == EINTR) continue;
        throw FileError(errno, path_);
      }
      bytes.remove_prefix(static_cast<std::size_t>(done));
      size_ += static_cast<std::uint64_t>(done);
    }
  }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

 private:
  std::string path_;
  int descriptor_;
  std::uint64_t size_ = 0;
};

void copy_prefix(const ReadOnlyFile& source, std::uint64_t size, NewFile& target) {
  std::string block(kCopyBlock, '\0');
  for (std::uint64_t offset = 0; offset < size;) {
    const auto wanted =
        static_cast<std::size_t>(std::min<std::uint64_t>(block.size(), size - offset));
    if (source.read_at(offset, block.data(), wanted) != wanted) {
      throw FormatError(source.path(), offset, "the file became shorter while it was read");
    }
    target.append(std::string_view(block).substr(0, wanted));
    offset += wanted;
  }
}

void append_fragment(NewFile& file, RecordType type, std::string_view payload) {
  std::string out(kHeader, '\0');
  out[6] = static_cast<char>(type);
  const std::uint32_t begun = checksum::crc32c(&out[6], 1);
  const std::uint32_t crc = mask_crc(checksum::crc32c(payload.data(), payload.size(), begun));
  for (unsigned i = 0; i < 4; ++i) out[i] = static_cast<char>((crc >> (8 * i)) & 0xff);
  out[4] = static_cast<char>(payload.size() & 0xff);
  out[5] = static_cast<char>(payload.size() >> 8);
  out.append(payload);
  file.append(out);
}

// The framing that log_reader.cpp reads: fragments do not span blocks.
void append_record(NewFile& file, std::string_view record) {
  bool first = true;
  do {
    const std::size_t room = kBlock - static_cast<std::size_t>(file.size() % kBlock);
    if (room < kHeader) {
      file.append(std::string(room, '\0'));
      continue;
    }
    const std::string_view piece = record.substr(0, std::min(record.size(), room - kHeader));
    record.remove_prefix(piece.size());
    const bool last = record.empty();
    append_fragment(file, first ? (last ? kFull : kFirst) : (last ? kLast : kMiddle), piece);
    first = false;
  } while (!record.empty() || first);
}

std::string drop_edit(std::uint32_t id) {
  std::string edit;
  put_varint(edit, kColumnFamily);
  put_varint(edit, id);
  put_varint(edit, kDrop);
  return edit;
}

std::string clear_default_edit(const ManifestState& state, std::uint64_t newest_wal) {
  std::string edit;
  put_varint(edit, kLogNumber);
  put_varint(edit, std::max(state.next_file_number, newest_wal + 1));
  for (const SstFile& sst : state.sst_files) {
    if (sst.column_family_id != 0) continue;
    put_varint(edit, kDeletedFile);
    put_varint(edit, sst.level);
    put_varint(edit, sst.number);
  }
  return edit;
}

}  // namespace

ManifestState keep_column_families(const std::filesystem::path& source,
                                   const std::filesystem::path& target,
                                   const std::set<std::uint32_t>& keep, std::uint64_t newest_wal) {
  const ManifestState state = read_manifest(source, true);
  {
    const ReadOnlyFile input(source);
    NewFile output(target);
    copy_prefix(input, state.valid_bytes, output);
    for (const ColumnFamily& family : state.column_families) {
      if (keep.contains(family.id)) continue;
      append_record(output,
                    family.id == 0 ? clear_default_edit(state, newest_wal) : drop_edit(family.id));
    }
  }
  return read_manifest(target, false);
}

}  // namespace kumo::rocksdb
