#include "rocksdb/blob_file.hpp"

#include <string>

#include "checksum/crc32c.hpp"
#include "rocksdb/block.hpp"
#include "rocksdb/coding.hpp"
#include "rocksdb/error.hpp"
#include "rocksdb/file.hpp"

namespace kumo::rocksdb {
namespace {

constexpr std::uint32_t kMagic = 0x00248f37;
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeader = 30;
constexpr std::size_t kFooter = 32;

}  // namespace

BlobFileInfo read_blob_file(const std::filesystem::path& path) {
  const ReadOnlyFile file(path);
  BlobFileInfo info;
  info.file_size = file.size();
  const std::string header = file.read_exactly(0, kHeader);
  Cursor cursor(header);
  if (cursor.fixed32() != kMagic) throw FormatError(file.path(), 0, "not a blob file");
  info.version = cursor.fixed32();
  if (info.version != kVersion) {
    throw FormatError(file.path(), 4,
                      "blob file version " + std::to_string(info.version) + " is not known");
  }
  info.column_family_id = cursor.fixed32();
  info.has_ttl = (cursor.fixed8() & 1) != 0;
  info.compression = cursor.fixed8();

  if (file.size() < kHeader + kFooter) return info;
  const std::uint64_t offset = file.size() - kFooter;
  const std::string footer = file.read_exactly(offset, kFooter);
  // An open file ends in a blob, not in a footer.
  if (load32(footer.data()) != kMagic) return info;
  const std::uint32_t crc = mask_crc(checksum::crc32c(footer.data(), kFooter - 4));
  if (crc != load32(footer.data() + kFooter - 4)) {
    throw FormatError(file.path(), offset, "the blob file footer's checksum does not match");
  }
  info.blob_count = load64(footer.data() + 4);
  return info;
}

}  // namespace kumo::rocksdb
