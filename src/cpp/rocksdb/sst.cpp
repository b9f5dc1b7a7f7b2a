#include "rocksdb/sst.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <string_view>
#include <utility>

#include "rocksdb/coding.hpp"
#include "rocksdb/compression.hpp"
#include "rocksdb/error.hpp"

namespace kumo::rocksdb {
namespace {

// Real metadata blocks have a few KiB; user collectors can add to the properties.
constexpr std::uint64_t kMaxMetadataBlock = std::uint64_t{4} << 20;
// Written for files that no column family made (SstFileWriter).
constexpr std::uint64_t kUnknownColumnFamily = INT32_MAX;

using Number = std::pair<std::string_view, std::uint64_t SstProperties::*>;
constexpr std::array<Number, 13> kNumbers = {{
    {"rocksdb.original.file.number", &SstProperties::original_file_number},
    {"rocksdb.creation.time", &SstProperties::creation_time},
    {"rocksdb.file.creation.time", &SstProperties::file_creation_time},
    {"rocksdb.oldest.key.time", &SstProperties::oldest_key_time},
    {"rocksdb.num.entries", &SstProperties::num_entries},
    {"rocksdb.deleted.keys", &SstProperties::num_deletions},
    {"rocksdb.merge.operands", &SstProperties::num_merge_operands},
    {"rocksdb.num.range-deletions", &SstProperties::num_range_deletions},
    {"rocksdb.raw.key.size", &SstProperties::raw_key_size},
    {"rocksdb.raw.value.size", &SstProperties::raw_value_size},
    {"rocksdb.data.size", &SstProperties::data_size},
    {"rocksdb.index.size", &SstProperties::index_size},
    {"rocksdb.filter.size", &SstProperties::filter_size},
}};

using Text = std::pair<std::string_view, std::string SstProperties::*>;
constexpr std::array<Text, 6> kTexts = {{
    {"rocksdb.creating.db.identity", &SstProperties::db_id},
    {"rocksdb.creating.session.identity", &SstProperties::db_session_id},
    {"rocksdb.creating.host.identity", &SstProperties::db_host_id},
    {"rocksdb.column.family.name", &SstProperties::column_family_name},
    {"rocksdb.comparator", &SstProperties::comparator},
    {"rocksdb.compression", &SstProperties::compression},
}};

constexpr std::string_view kColumnFamilyId = "rocksdb.column.family.id";
constexpr std::string_view kGlobalSeqno = "rocksdb.external_sst_file.global_seqno";

class MetadataReader {
 public:
  MetadataReader(const SstTail& tail, const SstFooter& footer) : tail_(tail), footer_(footer) {}

  // The block with its trailer; bounds, size and the type byte checked, the checksum not yet.
  [[nodiscard]] std::string fetch(const BlockHandle& handle, const char* name) const {
    const std::size_t trailer = footer_.trailer_size();
    if (handle.size > kMaxMetadataBlock) {
      fail(footer_.offset,
           std::string(name) + " block of " + std::to_string(handle.size) + " bytes is too large");
    }
    if (handle.offset > footer_.offset || handle.size + trailer > footer_.offset - handle.offset) {
      fail(footer_.offset, std::string(name) + " block does not lie before the footer");
    }
    std::string bytes = tail_.read(handle.offset, static_cast<std::size_t>(handle.size) + trailer);
    if (trailer != 0 && bytes[bytes.size() - trailer] != 0) {
      fail(handle.offset, std::string(name) + " block is compressed or damaged");
    }
    return bytes;
  }

  [[nodiscard]] bool verified(const std::string& bytes, std::uint64_t offset) const {
    const std::size_t trailer = footer_.trailer_size();
    if (trailer == 0 || footer_.checksum == ChecksumType::kNone) return true;
    const std::string_view block(bytes.data(), bytes.size() - trailer);
    const std::uint32_t stored = load32(bytes.data() + block.size() + 1);
    return block_checksum(footer_.checksum, block, bytes[block.size()]) +
               checksum_context(footer_.base_context, offset) ==
           stored;
  }

  [[nodiscard]] std::string_view contents(const std::string& bytes) const {
    return std::string_view(bytes).substr(0, bytes.size() - footer_.trailer_size());
  }

  [[noreturn]] void fail(std::uint64_t offset, const std::string& problem) const {
    throw FormatError(tail_.file().path(), offset, problem);
  }

 private:
  const SstTail& tail_;
  const SstFooter& footer_;
};

std::optional<BlockHandle> find_properties(const MetadataReader& reader, const SstFooter& footer) {
  const std::uint64_t offset = footer.metaindex.offset;
  const std::string bytes = reader.fetch(footer.metaindex, "metaindex");
  if (!reader.verified(bytes, offset)) {
    reader.fail(offset, "the metaindex block's checksum does not match");
  }
  std::optional<BlockHandle> found;
  try {
    visit_block(reader.contents(bytes), [&](std::string_view key, std::string_view value, auto) {
      if (key != "rocksdb.properties" && key != "rocksdb.stats") return;
      Cursor cursor(value);
      found.emplace();
      found->offset = cursor.varint64();
      found->size = cursor.varint64();
    });
  } catch (const DecodeError& error) {
    reader.fail(offset, std::string("metaindex block: ") + error.what());
  }
  return found;
}

void set_property(SstProperties& properties, std::string_view key, std::string_view value) {
  for (const auto& [name, member] : kNumbers) {
    if (key == name) properties.*member = Cursor(value).varint64();
  }
  for (const auto& [name, member] : kTexts) {
    if (key == name) properties.*member = std::string(value);
  }
  if (key == kColumnFamilyId) {
    const std::uint64_t id = Cursor(value).varint64();
    if (id != kUnknownColumnFamily) properties.column_family_id = id;
  } else if (key == kGlobalSeqno) {
    properties.global_seqno = Cursor(value).fixed64();
  }
}

void read_properties_block(const MetadataReader& reader, const BlockHandle& handle,
                           SstProperties& properties) {
  std::string bytes = reader.fetch(handle, "properties");
  std::size_t seqno_at = 0;
  try {
    visit_block(reader.contents(bytes),
                [&](std::string_view key, std::string_view value, std::size_t value_offset) {
                  try {
                    set_property(properties, key, value);
                  } catch (const DecodeError&) {
                    throw DecodeError("property " + std::string(key) + " has a malformed value");
                  }
                  if (key == kGlobalSeqno) seqno_at = value_offset;
                });
  } catch (const DecodeError& error) {
    reader.fail(handle.offset, std::string("properties block: ") + error.what());
  }
  if (reader.verified(bytes, handle.offset)) return;
  // Ingestion with write_global_seqno overwrites this field in place and leaves the checksum.
  if (seqno_at != 0) {
    bytes.replace(seqno_at, 8, 8, '\0');
    if (reader.verified(bytes, handle.offset)) return;
  }
  reader.fail(handle.offset, "the properties block's checksum does not match");
}

// Two hexadecimal digits.
std::string compression_of(std::string_view hex) {
  std::uint8_t type = 0;
  const auto [stop, error] = std::from_chars(hex.data(), hex.data() + hex.size(), type, 16);
  const bool whole = error == std::errc() && stop == hex.data() + hex.size();
  const std::string name = whole ? compression_type_name(type) : "";
  return name.empty() ? "0x" + std::string(hex) : name;
}

// format_version 7 stores "<manager>;<types in hex>;", older ones the name of the type.
std::string compression_name(const std::string& stored, std::uint32_t format_version) {
  const std::size_t begin = stored.find(';');
  if (format_version < 7 || begin == std::string::npos) return stored;
  const std::size_t end = stored.find(';', begin + 1);
  if (end == std::string::npos || (end - begin - 1) % 2 != 0) return stored;
  std::string names;
  for (std::size_t at = begin + 1; at < end; at += 2) {
    if (!names.empty()) names += ',';
    names += compression_of(std::string_view(stored).substr(at, 2));
  }
  return names.empty() ? "NoCompression" : names;
}

}  // namespace

bool SstProperties::identity_complete() const noexcept {
  const auto base36 = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); };
  return !db_id.empty() && db_session_id.size() == 20 &&
         std::all_of(db_session_id.begin(), db_session_id.end(), base36) &&
         original_file_number != 0 && global_seqno.value_or(0) == 0;
}

SstProperties read_sst_properties(const std::filesystem::path& path) {
  const ReadOnlyFile file(path);
  const SstTail tail(file);
  const SstFooter footer = read_sst_footer(tail);
  const MetadataReader reader(tail, footer);
  SstProperties properties;
  properties.file_size = file.size();
  properties.kind = footer.kind;
  properties.format_version = footer.format_version;
  properties.checksum = footer.checksum;
  // A table without a properties block (very old) is readable; its identity is incomplete.
  if (const auto handle = find_properties(reader, footer)) {
    read_properties_block(reader, *handle, properties);
  }
  properties.compression = compression_name(properties.compression, footer.format_version);
  return properties;
}

}  // namespace kumo::rocksdb
