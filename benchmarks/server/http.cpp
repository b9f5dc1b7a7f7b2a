#include "http.hpp"

#include <algorithm>
#include <charconv>
#include <ctime>

namespace kumo::bench {
namespace {

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

std::string_view trimmed(std::string_view text) noexcept {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string formatted_date(std::int64_t seconds, const char* format) {
  const std::time_t moment = seconds;
  std::tm parts{};
  gmtime_r(&moment, &parts);
  char text[64];
  return {text, std::strftime(text, sizeof text, format, &parts)};
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return lower(x) == lower(y); });
}

std::string_view Request::header(std::string_view name) const noexcept {
  for (const auto& [found, value] : headers) {
    if (equal_ignoring_case(found, name)) return value;
  }
  return {};
}

std::optional<std::string_view> Request::parameter(std::string_view name) const noexcept {
  std::string_view rest = query;
  while (!rest.empty()) {
    const auto end = rest.find('&');
    const std::string_view item = rest.substr(0, end);
    const auto equals = item.find('=');
    if (item.substr(0, equals) == name) {
      return equals == std::string_view::npos ? std::string_view{} : item.substr(equals + 1);
    }
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return std::nullopt;
}

HeadState parse_head(std::string_view data, Request& request, std::size_t& length) {
  const auto end = data.find("\r\n\r\n");
  if (end == std::string_view::npos) return HeadState::kIncomplete;
  length = end + 4;
  std::string_view head = data.substr(0, end + 2);
  const auto line_end = head.find("\r\n");
  const std::string_view line = head.substr(0, line_end);
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || line.substr(last + 1) != "HTTP/1.1") {
    return HeadState::kMalformed;
  }
  request.method = line.substr(0, first);
  std::string_view target = line.substr(first + 1, last - first - 1);
  if (target.empty() || target.front() != '/') return HeadState::kMalformed;
  const auto mark = target.find('?');
  request.path = target.substr(0, mark);
  request.query = mark == std::string_view::npos ? std::string_view{} : target.substr(mark + 1);
  request.headers.clear();
  head.remove_prefix(line_end + 2);
  while (!head.empty()) {
    const auto stop = head.find("\r\n");
    const std::string_view field = head.substr(0, stop);
    const auto colon = field.find(':');
    if (colon == std::string_view::npos) return HeadState::kMalformed;
    request.headers.emplace_back(field.substr(0, colon), trimmed(field.substr(colon + 1)));
    head.remove_prefix(stop + 2);
  }
  return HeadState::kComplete;
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      if (const auto value = to_number(text.substr(i + 1, 2), 16)) {
        out.push_back(static_cast<char>(*value));
        i += 2;
        continue;
      }
    }
    out.push_back(text[i]);
  }
  return out;
}

std::string xml_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

std::optional<std::uint64_t> to_number(std::string_view text, int base) noexcept {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<Range> parse_range(std::string_view header, std::uint64_t size) {
  if (!header.starts_with("bytes=")) return std::nullopt;
  header.remove_prefix(6);
  const auto dash = header.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto first = to_number(header.substr(0, dash));
  const auto last = to_number(header.substr(dash + 1));
  if (!first) {
    if (!last || *last == 0 || size == 0) return std::nullopt;
    const std::uint64_t count = std::min(*last, size);
    return Range{size - count, count};
  }
  if (*first >= size) return std::nullopt;
  const std::uint64_t stop = last ? std::min(*last + 1, size) : size;
  if (stop <= *first) return std::nullopt;
  return Range{*first, stop - *first};
}

std::string http_date(std::int64_t seconds) {
  return formatted_date(seconds, "%a, %d %b %Y %H:%M:%S GMT");
}

std::string iso_date(std::int64_t seconds) {
  return formatted_date(seconds, "%Y-%m-%dT%H:%M:%S.000Z");
}

}  // namespace kumo::bench
