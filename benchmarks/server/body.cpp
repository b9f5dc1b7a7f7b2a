#include "body.hpp"

#include <algorithm>

#include "checksum/crc.hpp"
#include "checksum/crc32c.hpp"

namespace kumo::bench {
namespace {

constexpr std::size_t kLineAtMost = 4096;
constexpr std::size_t kCollectedAtMost = std::size_t{16} << 20;

std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

}  // namespace

std::string checksum_text(std::uint64_t value, unsigned bytes) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (unsigned i = 0; i < bytes; i += 3) {
    std::uint32_t group = 0;
    for (unsigned j = i; j < i + 3; ++j) {
      const auto byte = j < bytes ? (value >> (8 * (bytes - 1 - j))) & 0xff : 0;
      group = group << 8 | static_cast<std::uint32_t>(byte);
    }
    for (unsigned j = 0; j < 4; ++j) {
      out.push_back(i + j <= bytes ? kDigits[(group >> (18 - 6 * j)) & 63] : '=');
    }
  }
  return out;
}

std::size_t ChunkDecoder::feed(std::string_view data, const Sink& sink) {
  std::size_t used = 0;
  while (used < data.size() && !finished() && !malformed()) {
    if (state_ == State::kContent) {
      const auto count =
          static_cast<std::size_t>(std::min<std::uint64_t>(content_left_, data.size() - used));
      sink(data.substr(used, count));
      used += count;
      skip(count);
      continue;
    }
    const char c = data[used++];
    if (c != '\n') {
      line_.push_back(c);
      if (line_.size() > kLineAtMost) state_ = State::kMalformed;
      continue;
    }
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    take_line();
    line_.clear();
  }
  return used;
}

void ChunkDecoder::take_line() {
  switch (state_) {
    case State::kSize: {
      const auto size = to_number(std::string_view(line_).substr(0, line_.find(';')), 16);
      if (!size) {
        state_ = State::kMalformed;
      } else if (*size == 0) {
        state_ = State::kTrailer;
      } else {
        content_left_ = *size;
        state_ = State::kContent;
      }
      break;
    }
    case State::kAfterContent:
      state_ = line_.empty() ? State::kSize : State::kMalformed;
      break;
    case State::kTrailer: {
      if (line_.empty()) {
        state_ = State::kDone;
        break;
      }
      const auto colon = line_.find(':');
      if (colon == std::string::npos) {
        state_ = State::kMalformed;
        break;
      }
      const auto value = line_.find_first_not_of(" \t", colon + 1);
      trailers_.emplace_back(lowered(std::string_view(line_).substr(0, colon)),
                             value == std::string::npos ? "" : line_.substr(value));
      break;
    }
    default:
      state_ = State::kMalformed;
  }
}

void ChunkDecoder::skip(std::uint64_t count) noexcept {
  content_left_ -= count;
  if (content_left_ == 0) state_ = State::kAfterContent;
}

bool Body::begin(const Request& request, Use use) {
  *this = Body();
  use_ = use;
  const bool aws = request.header("content-encoding").find("aws-chunked") != std::string_view::npos;
  const std::string_view encoding = request.header("transfer-encoding");
  if (!encoding.empty()) {
    if (!equal_ignoring_case(encoding, "chunked")) return false;
    http_.emplace();
  } else if (const std::string_view length = request.header("content-length"); !length.empty()) {
    const auto value = to_number(length);
    if (!value) return false;
    length_left_ = *value;
    if (!aws) announced_ = *value;
  }
  if (aws) {
    announced_ = to_number(request.header("x-amz-decoded-content-length"));
    // Only for the trailer, where nobody else looks at the content.
    const bool trailer = !http_ && !request.header("x-amz-trailer").empty();
    if (use != Use::kDiscard || trailer) aws_.emplace();
  }
  for (const auto& [name, value] : request.headers) {
    std::string key = lowered(name);
    if (key.starts_with("x-amz-checksum-")) claims_.emplace_back(std::move(key), value);
  }
  return true;
}

std::size_t Body::feed(std::string_view data) {
  const ChunkDecoder::Sink to_content = [this](std::string_view piece) { content(piece); };
  const ChunkDecoder::Sink decoded = [this, &to_content](std::string_view piece) {
    if (!aws_) {
      content(piece);
    } else {
      aws_->feed(piece, to_content);
    }
  };
  if (http_) return http_->feed(data, decoded);
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(length_left_, data.size()));
  length_left_ -= count;
  decoded(data.substr(0, count));
  return count;
}

std::uint64_t Body::skippable() const noexcept {
  if (use_ != Use::kDiscard) return 0;
  if (http_) return http_->content_left();
  return aws_ ? std::min(aws_->content_left(), length_left_) : length_left_;
}

void Body::skip(std::uint64_t count) noexcept {
  if (http_) {
    http_->skip(count);
  } else {
    length_left_ -= count;
    if (aws_) aws_->skip(count);
  }
  seen_ += count;
}

bool Body::finished() const noexcept { return http_ ? http_->finished() : length_left_ == 0; }

bool Body::malformed() const noexcept {
  if (http_ && http_->malformed()) return true;
  if (aws_ && (aws_->malformed() || (finished() && !aws_->finished()))) return true;
  if (finished() && use_ == Use::kCheck && seen_ != size()) return true;
  return collected_.size() > kCollectedAtMost;
}

void Body::content(std::string_view data) {
  seen_ += data.size();
  if (use_ == Use::kCollect) {
    if (collected_.size() <= kCollectedAtMost) collected_.append(data);
  } else if (use_ == Use::kCheck) {
    crc32c_ = checksum::crc32c(data.data(), data.size(), crc32c_);
    crc32_ = checksum::crc32(data.data(), data.size(), crc32_);
    crc64nvme_ = checksum::crc64nvme(data.data(), data.size(), crc64nvme_);
  }
}

std::string Body::claim(std::string_view name) const {
  for (const auto& [key, value] : claims_) {
    if (key == name) return value;
  }
  for (const auto* decoder : {&aws_, &http_}) {
    if (!*decoder) continue;
    for (const auto& [key, value] : (*decoder)->trailers()) {
      if (key == name) return value;
    }
  }
  return {};
}

Verdict Body::verdict() const {
  const std::pair<const char*, std::string> found[] = {
      {"x-amz-checksum-crc32c", checksum_text(crc32c_, 4)},
      {"x-amz-checksum-crc32", checksum_text(crc32_, 4)},
      {"x-amz-checksum-crc64nvme", checksum_text(crc64nvme_, 8)},
  };
  Verdict result = Verdict::kNothingToCheck;
  for (const auto& [name, value] : found) {
    const std::string claimed = claim(name);
    if (claimed.empty()) continue;
    if (claimed != value) return Verdict::kMismatch;
    result = Verdict::kVerified;
  }
  return result;
}

}  // namespace kumo::bench
