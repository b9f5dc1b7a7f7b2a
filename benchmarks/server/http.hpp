#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kumo::bench {

using Fields = std::vector<std::pair<std::string_view, std::string_view>>;

// A request without its body. Its texts point into the buffer it was parsed from.
struct Request {
  std::string_view method;
  std::string_view path;   // percent-encoded, begins with '/'
  std::string_view query;  // without '?'
  Fields headers;

  // A header, by its name in lower case; empty if absent.
  [[nodiscard]] std::string_view header(std::string_view name) const noexcept;
  // A parameter of the query; nullopt if absent, empty if it has no value.
  [[nodiscard]] std::optional<std::string_view> parameter(std::string_view name) const noexcept;
};

enum class HeadState { kIncomplete, kComplete, kMalformed };

// Parses the head that `data` begins with; sets `length` to its size with the empty line.
HeadState parse_head(std::string_view data, Request& request, std::size_t& length);

[[nodiscard]] bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept;
[[nodiscard]] std::string percent_decoded(std::string_view text);
[[nodiscard]] std::string xml_escaped(std::string_view text);
[[nodiscard]] std::optional<std::uint64_t> to_number(std::string_view text, int base = 10) noexcept;

struct Range {
  std::uint64_t start;
  std::uint64_t count;
};
// Reads "bytes=a-b", "bytes=a-" or "bytes=-n"; nullopt if nothing of the object is in it.
[[nodiscard]] std::optional<Range> parse_range(std::string_view header, std::uint64_t size);

// The form of dates in HTTP headers.
[[nodiscard]] std::string http_date(std::int64_t seconds);
// The form of dates in S3's documents.
[[nodiscard]] std::string iso_date(std::int64_t seconds);

}  // namespace kumo::bench
