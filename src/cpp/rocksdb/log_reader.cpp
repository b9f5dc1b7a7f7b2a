#include "rocksdb/log_reader.hpp"

#include <algorithm>
#include <utility>

#include "checksum/crc32c.hpp"
#include "rocksdb/block.hpp"
#include "rocksdb/coding.hpp"

namespace kumo::rocksdb {
namespace {

constexpr std::size_t kBlock = 32768;
constexpr std::size_t kHeader = 7;
constexpr std::size_t kRecyclableHeader = 11;

enum RecordType : std::uint8_t {
  kZero = 0,
  kFull = 1,
  kFirst = 2,
  kMiddle = 3,
  kLast = 4,
  kRecyclableFull = 5,
  kRecyclableLast = 8,
  kSetCompression = 9,
  kTimestampSize = 10,
  kRecyclableTimestampSize = 11,
  kPredecessor = 130,
  kRecyclablePredecessor = 131,
};
// Types with this bit may be skipped by readers that do not know them.
constexpr std::uint8_t kIgnorable = 0x80;

bool is_recyclable(std::uint8_t type) noexcept {
  return (type >= kRecyclableFull && type <= kRecyclableLast) || type == kRecyclableTimestampSize ||
         type == kRecyclablePredecessor;
}

bool is_data(std::uint8_t type) noexcept { return type >= kFull && type <= kRecyclableLast; }

bool all_zero(std::string_view bytes) noexcept {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

}  // namespace

const char* log_tail_name(LogTail tail) noexcept {
  switch (tail) {
    case LogTail::kClean:
      return "clean";
    case LogTail::kPartial:
      return "partial";
    case LogTail::kZeros:
      return "zeros";
    case LogTail::kRecycled:
      return "recycled";
    case LogTail::kDamaged:
      return "damaged";
  }
  return "unknown";
}

LogReader::LogReader(const ReadOnlyFile& file, std::optional<std::uint64_t> log_number,
                     std::uint64_t start)
    : file_(file),
      block_offset_(start / kBlock * kBlock),
      skip_(static_cast<std::size_t>(start % kBlock)),
      valid_bytes_(start) {
  // The headers of recycled files hold the number's low 32 bits.
  if (log_number) log_number_ = static_cast<std::uint32_t>(*log_number);
}

bool LogReader::next(LogFragment& fragment) {
  Physical record;
  while (!tail_ && read_physical(record)) {
    if (is_data(record.type)) return accept_fragment(record, fragment);
    if (!accept_metadata(record)) return false;
  }
  return false;
}

bool LogReader::end(LogTail tail, const std::string& problem) {
  tail_ = tail;
  tail_offset_ = position();
  tail_problem_ = problem;
  return false;
}

bool LogReader::load_block() {
  block_offset_ += block_.size();
  block_.resize(kBlock);
  block_.resize(file_.read_at(block_offset_, block_.data(), kBlock));
  position_ = std::min(std::exchange(skip_, 0), block_.size());
  return !block_.empty();
}

bool LogReader::zeros_to_end_of_block() const noexcept {
  return all_zero(std::string_view(block_).substr(position_));
}

bool LogReader::zeros_to_end() {
  if (!zeros_to_end_of_block()) return false;
  std::string bytes(kBlock, '\0');
  for (std::uint64_t at = block_offset_ + block_.size();;) {
    const std::size_t got = file_.read_at(at, bytes.data(), kBlock);
    if (got == 0) return true;
    if (!all_zero(std::string_view(bytes).substr(0, got))) return false;
    at += got;
  }
}

bool LogReader::read_physical(Physical& record) {
  // The writer leaves the end of a block empty where no header fits.
  while (block_.size() - position_ < kHeader) {
    if (block_.size() != kBlock && position_ != block_.size()) {
      return end(LogTail::kPartial, "the file ends inside a record header");
    }
    const bool at_end = !block_.empty() && block_.size() != kBlock;
    if (at_end || !load_block()) {
      return in_record_ ? end(LogTail::kPartial, "the file ends inside a record")
                        : end(LogTail::kClean, "");
    }
  }
  const char* header = block_.data() + position_;
  const std::size_t length = static_cast<unsigned char>(header[4]) |
                             static_cast<std::size_t>(static_cast<unsigned char>(header[5])) << 8;
  record.type = static_cast<std::uint8_t>(header[6]);
  const std::size_t header_size = is_recyclable(record.type) ? kRecyclableHeader : kHeader;

  if (record.type == kZero && length == 0) {
    if (recycled_ && kBlock - position_ < kRecyclableHeader && zeros_to_end_of_block()) {
      position_ = block_.size();
      return read_physical(record);
    }
    return zeros_to_end() ? end(LogTail::kZeros, "the rest of the file is zeros")
                          : end(LogTail::kDamaged, "a record header is zero, but data follows");
  }
  if (header_size + length > kBlock - position_) {
    return end(recycled_ ? LogTail::kRecycled : LogTail::kDamaged,
               "a record of " + std::to_string(length) + " bytes does not fit its block");
  }
  if (header_size + length > block_.size() - position_) {
    return end(LogTail::kPartial, "the file ends inside a record");
  }
  if (!check_physical(header, header_size, length)) return false;
  record.offset = position();
  record.data = std::string_view(header + header_size, length);
  position_ += header_size + length;
  return true;
}

bool LogReader::check_physical(const char* header, std::size_t header_size, std::size_t length) {
  const std::uint32_t crc = checksum::crc32c(header + 6, header_size - 6 + length);
  if (mask_crc(crc) != load32(header)) {
    return end(recycled_ ? LogTail::kRecycled : LogTail::kDamaged,
               "a record's checksum does not match");
  }
  if (header_size == kHeader) {
    // A recycled file is recycled from its first record on: this one is from before.
    const auto type = static_cast<std::uint8_t>(header[6]);
    if (recycled_ && is_data(type)) {
      return end(LogTail::kRecycled, "a record of an earlier use of the file");
    }
    return true;
  }
  if (any_data_ && !recycled_) {
    return end(LogTail::kDamaged, "a recyclable record in a file that is not recycled");
  }
  recycled_ = true;
  const std::uint32_t number = load32(header + kHeader);
  if (!log_number_) log_number_ = number;
  if (number != *log_number_) {
    return end(LogTail::kRecycled, "a record of an earlier use of the file");
  }
  return true;
}

bool LogReader::accept_fragment(const Physical& record, LogFragment& fragment) {
  const int kind = (record.type - kFull) % 4 + kFull;
  fragment.first = kind == kFull || kind == kFirst;
  fragment.last = kind == kFull || kind == kLast;
  const bool continues = !fragment.first;
  // Old writers could leave an empty first fragment at a block's end and begin again.
  if (continues != in_record_ && !(in_record_ && record_bytes_ == 0)) {
    position_ = static_cast<std::size_t>(record.offset - block_offset_);
    return end(LogTail::kDamaged,
               continues ? "a record lacks its beginning" : "a record begins inside another one");
  }
  if (fragment.first) {
    record_offset_ = record.offset;
    record_bytes_ = 0;
  }
  record_bytes_ += record.data.size();
  in_record_ = !fragment.last;
  any_data_ = true;
  fragment.data = record.data;
  fragment.record_offset = record_offset_;
  fragment.data_offset = position() - record.data.size();
  if (fragment.last) valid_bytes_ = position();
  return true;
}

bool LogReader::accept_metadata(const Physical& record) {
  const auto damaged = [&](const std::string& problem) {
    position_ = static_cast<std::size_t>(record.offset - block_offset_);
    return end(LogTail::kDamaged, problem);
  };
  if (in_record_) return damaged("a metadata record inside another record");
  switch (record.type) {
    case kSetCompression:
      if (record.data.size() != 4) return damaged("a malformed compression record");
      if (valid_bytes_ != 0) return damaged("a compression record behind other records");
      compressed_ = load32(record.data.data()) != 0;
      break;
    case kTimestampSize:
    case kRecyclableTimestampSize:
      break;
    case kPredecessor:
    case kRecyclablePredecessor:
      if (record.data.size() < 24) return damaged("a malformed predecessor record");
      predecessor_ = PredecessorWal{load64(record.data.data()), load64(record.data.data() + 8),
                                    load64(record.data.data() + 16)};
      break;
    default:
      if ((record.type & kIgnorable) == 0) {
        return damaged("unknown record type " + std::to_string(record.type));
      }
  }
  valid_bytes_ = position();
  return true;
}

}  // namespace kumo::rocksdb
