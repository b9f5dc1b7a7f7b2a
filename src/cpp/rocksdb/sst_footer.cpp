#include "rocksdb/sst_footer.hpp"

#include <algorithm>
#include <string_view>

#include "rocksdb/coding.hpp"
#include "rocksdb/error.hpp"

namespace kumo::rocksdb {
namespace {

constexpr std::size_t kFooterSize = 53;
constexpr std::size_t kLegacyFooterSize = 48;
constexpr std::uint32_t kNewestFormat = 7;
// Properties, metaindex and footer mostly fit in this: one read for most files.
constexpr std::uint64_t kFirstRead = 8192;

struct Magic {
  std::uint64_t value;
  TableKind kind;
  bool legacy;
};
constexpr Magic kMagics[] = {
    {0x88e241b785f4cff7U, TableKind::kBlockBased, false},
    {0xdb4775248b80fb57U, TableKind::kBlockBased, true},
    {0x8242229663bf9564U, TableKind::kPlain, false},
    {0x4f3418eb7a8f13b8U, TableKind::kPlain, true},
    {0x926789d0c5f17873U, TableKind::kCuckoo, false},
};

BlockHandle read_handle(Cursor& cursor) {
  BlockHandle handle;
  handle.offset = cursor.varint64();
  handle.size = cursor.varint64();
  return handle;
}

// format_version 6 and later: the footer has its own checksum and only the metaindex's size.
void parse_extended(std::string_view bytes, SstFooter& footer) {
  constexpr std::string_view kExtendedMagic("\x3e\x00\x7a\x00", 4);
  constexpr std::size_t kChecksumAt = 5;
  Cursor cursor(bytes.substr(1));
  if (cursor.take(kExtendedMagic.size()) != kExtendedMagic) {
    throw DecodeError("the footer lacks its extended magic number");
  }
  const std::uint32_t stored = cursor.fixed32();
  footer.base_context = cursor.fixed32();
  footer.metaindex.size = cursor.fixed32();
  cursor.take(16);
  if (cursor.fixed64() != 0) {
    throw DecodeError("the footer uses a feature of a newer RocksDB that this reader lacks");
  }
  std::string cleared(bytes);
  cleared.replace(kChecksumAt, 4, 4, '\0');
  const char last = cleared.back();
  cleared.pop_back();
  if (footer.checksum != ChecksumType::kNone &&
      block_checksum(footer.checksum, cleared, last) +
              checksum_context(footer.base_context, footer.offset) !=
          stored) {
    throw DecodeError("the footer's checksum does not match");
  }
  const std::uint64_t with_trailer = footer.metaindex.size + footer.trailer_size();
  if (with_trailer > footer.offset) throw DecodeError("the metaindex block does not fit the file");
  footer.metaindex.offset = footer.offset - with_trailer;
}

SstFooter parse_footer(const SstTail& tail, std::uint64_t file_size) {
  const auto tail_bytes = [&](std::size_t count) { return tail.read(file_size - count, count); };
  if (file_size < kLegacyFooterSize) throw DecodeError("the file is too small for a table");
  const std::uint64_t value = load64(tail_bytes(8).data());
  const auto* magic = std::find_if(std::begin(kMagics), std::end(kMagics),
                                   [value](const Magic& known) { return known.value == value; });
  if (magic == std::end(kMagics)) {
    throw DecodeError("not a RocksDB table: unknown magic number (damaged or cut short?)");
  }
  SstFooter footer;
  footer.kind = magic->kind;
  if (magic->legacy) {
    footer.offset = file_size - kLegacyFooterSize;
    const std::string bytes = tail_bytes(kLegacyFooterSize);
    Cursor cursor(bytes);
    footer.metaindex = read_handle(cursor);
    return footer;
  }
  if (file_size < kFooterSize) throw DecodeError("the file is too small for a table");
  footer.offset = file_size - kFooterSize;
  const std::string bytes = tail_bytes(kFooterSize);
  footer.format_version = load32(bytes.data() + kFooterSize - 12);
  if (footer.format_version > kNewestFormat) {
    throw DecodeError("table format_version " + std::to_string(footer.format_version) +
                      " is newer than this reader knows (up to " + std::to_string(kNewestFormat) +
                      "), or the footer is damaged");
  }
  const auto checksum = static_cast<unsigned char>(bytes[0]);
  if (checksum > static_cast<unsigned char>(ChecksumType::kXxh3)) {
    throw DecodeError("unknown checksum type " + std::to_string(checksum));
  }
  footer.checksum = static_cast<ChecksumType>(checksum);
  if (footer.format_version >= 6) {
    parse_extended(bytes, footer);
  } else {
    Cursor cursor(std::string_view(bytes).substr(1));
    footer.metaindex = read_handle(cursor);
  }
  return footer;
}

}  // namespace

SstTail::SstTail(const ReadOnlyFile& file)
    : file_(file),
      offset_(file.size() - std::min(file.size(), kFirstRead)),
      bytes_(file.read_exactly(offset_, static_cast<std::size_t>(file.size() - offset_))) {}

std::string SstTail::read(std::uint64_t offset, std::size_t count) const {
  if (offset < offset_) return file_.read_exactly(offset, count);
  if (offset > file_.size() || count > file_.size() - offset) {
    throw FormatError(file_.path(), offset, "a block runs past the end of the file");
  }
  return bytes_.substr(static_cast<std::size_t>(offset - offset_), count);
}

SstFooter read_sst_footer(const SstTail& tail) {
  const std::uint64_t size = tail.file().size();
  try {
    return parse_footer(tail, size);
  } catch (const DecodeError& error) {
    throw FormatError(tail.file().path(), size - std::min<std::uint64_t>(size, kFooterSize),
                      error.what());
  }
}

}  // namespace kumo::rocksdb
