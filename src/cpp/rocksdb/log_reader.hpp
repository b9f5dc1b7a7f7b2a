#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "rocksdb/file.hpp"

namespace kumo::rocksdb {

// How a log file (WAL or MANIFEST) ends, behind its last whole record.
enum class LogTail : std::uint8_t {
  kClean,     // with that record
  kPartial,   // inside a record: normal while another process appends
  kZeros,     // in zeros: space allocated but not written
  kRecycled,  // in what an earlier use of a recycled file left behind
  kDamaged,   // in bytes that are no record
};

[[nodiscard]] const char* log_tail_name(LogTail tail) noexcept;

// A piece of a record; records longer than a 32 KiB block have several.
struct LogFragment {
  bool first = false;
  bool last = false;
  std::string_view data;            // valid until the next call of next()
  std::uint64_t record_offset = 0;  // where the record begins in the file
  std::uint64_t data_offset = 0;    // where the data begins in the file
};

struct PredecessorWal {
  std::uint64_t number = 0;
  std::uint64_t size = 0;
  std::uint64_t last_sequence = 0;
};

// Reads the framing shared by WAL and MANIFEST in constant memory and checks every fragment's
// CRC32C. Damage is not thrown but reported as the tail: what it means depends on the caller.
class LogReader {
 public:
  // `log_number` tells a recycled file's own records from older ones; without it, the first
  // record decides. `start` is where to begin: the end of a record, as valid_bytes() tells it.
  explicit LogReader(const ReadOnlyFile& file, std::optional<std::uint64_t> log_number = {},
                     std::uint64_t start = 0);

  // False at the end of the last readable record; then tail() says why.
  bool next(LogFragment& fragment);

  // The bytes up to the end of the last whole record that was read.
  [[nodiscard]] std::uint64_t valid_bytes() const noexcept { return valid_bytes_; }
  [[nodiscard]] LogTail tail() const noexcept { return tail_.value_or(LogTail::kClean); }
  [[nodiscard]] std::uint64_t tail_offset() const noexcept { return tail_offset_; }
  [[nodiscard]] const std::string& tail_problem() const noexcept { return tail_problem_; }

  [[nodiscard]] bool compressed() const noexcept { return compressed_; }
  [[nodiscard]] bool recycled() const noexcept { return recycled_; }
  [[nodiscard]] const std::optional<PredecessorWal>& predecessor() const noexcept {
    return predecessor_;
  }

 private:
  struct Physical {
    std::uint8_t type = 0;
    std::string_view data;
    std::uint64_t offset = 0;
  };

  bool read_physical(Physical& record);
  bool check_physical(const char* header, std::size_t header_size, std::size_t length);
  bool accept_fragment(const Physical& record, LogFragment& fragment);
  bool accept_metadata(const Physical& record);
  bool load_block();
  bool zeros_to_end();
  bool zeros_to_end_of_block() const noexcept;
  bool end(LogTail tail, const std::string& problem);
  [[nodiscard]] std::uint64_t position() const noexcept { return block_offset_ + position_; }

  const ReadOnlyFile& file_;
  std::optional<std::uint32_t> log_number_;
  std::string block_;
  std::uint64_t block_offset_ = 0;
  std::size_t position_ = 0;
  std::size_t skip_ = 0;  // of the first block

  bool in_record_ = false;
  std::uint64_t record_offset_ = 0;
  std::uint64_t record_bytes_ = 0;
  bool any_data_ = false;
  bool compressed_ = false;
  bool recycled_ = false;
  std::optional<PredecessorWal> predecessor_;

  std::uint64_t valid_bytes_ = 0;
  std::optional<LogTail> tail_;
  std::uint64_t tail_offset_ = 0;
  std::string tail_problem_;
};

}  // namespace kumo::rocksdb
