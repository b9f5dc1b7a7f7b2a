#include "connection.hpp"

#include <algorithm>
#include <cstring>
#include <ctime>

namespace kumo::bench {
namespace {

// Holds the head of a request, or a piece of a body that is looked at.
constexpr std::size_t kInputSize = 64 << 10;
// So little content is copied behind the headers and sent with them.
constexpr std::uint64_t kCopiedAtMost = 64 << 10;
constexpr int kStepsAtOnce = 32;

// The Date header changes once a second.
const std::string& date_now() {
  static std::time_t last = 0;
  static std::string text;
  const std::time_t now = std::time(nullptr);
  if (now != last) {
    last = now;
    text = http_date(now);
  }
  return text;
}

}  // namespace

Connection::Connection(std::unique_ptr<Transport> transport, S3& s3, const Content& content)
    : transport_(std::move(transport)), s3_(s3), content_(content), input_(kInputSize) {}

Connection::Next Connection::run() {
  for (int i = 0; i < kStepsAtOnce; ++i) {
    switch (step()) {
      case Io::kOk:
        break;
      case Io::kBlocked:
        return transport_->wants_write() ? Next::kWaitToWrite : Next::kWaitToRead;
      case Io::kClosed:
        return Next::kClose;
    }
  }
  return Next::kRunAgain;
}

Io Connection::step() {
  switch (state_) {
    case State::kHandshake: {
      const Io done = transport_->handshake();
      if (done == Io::kOk) state_ = State::kHead;
      return done;
    }
    case State::kHead:
      return read_head();
    case State::kBody:
      return read_body();
    case State::kResponse:
      return send_response();
  }
  return Io::kClosed;
}

Io Connection::read_head() {
  const std::string_view input(input_.data() + input_start_, input_end_ - input_start_);
  std::size_t length = 0;
  switch (input.empty() ? HeadState::kIncomplete : parse_head(input, request_, length)) {
    case HeadState::kMalformed:
      return refuse("this is no HTTP/1.1 request");
    case HeadState::kComplete:
      break;
    case HeadState::kIncomplete: {
      if (input_start_ != 0) {
        std::memmove(input_.data(), input_.data() + input_start_, input.size());
        input_start_ = 0;
        input_end_ = input.size();
      }
      if (input_end_ == input_.size()) return refuse("the headers are too long");
      const Moved got = transport_->read(input_.data() + input_end_, input_.size() - input_end_);
      input_end_ += got.bytes;
      return got.state;
    }
  }
  input_start_ += length;
  const Body::Use use = s3_.begin(request_, call_);
  if (!body_.begin(request_, use)) return refuse("the body's length is not understood");
  close_after_ = equal_ignoring_case(request_.header("connection"), "close");
  state_ = State::kBody;
  if (equal_ignoring_case(request_.header("expect"), "100-continue") && !body_.finished() &&
      input_start_ == input_end_) {
    // So few bytes always fit: nothing else is under way on this connection.
    const Moved sent = transport_->write("HTTP/1.1 100 Continue\r\n\r\n", false);
    return sent.state == Io::kOk ? transport_->flush() : Io::kClosed;
  }
  return Io::kOk;
}

Io Connection::read_body() {
  if (body_.malformed()) return refuse("the body is not framed as its headers say");
  if (body_.finished()) {
    begin_response(s3_.finish(call_, body_));
    return Io::kOk;
  }
  if (input_start_ == input_end_) {
    input_start_ = input_end_ = 0;
    if (const std::uint64_t skippable = body_.skippable(); skippable != 0) {
      const Moved got = transport_->discard(skippable);
      body_.skip(got.bytes);
      return got.state;
    }
    const Moved got = transport_->read(input_.data(), input_.size());
    input_end_ = got.bytes;
    if (got.state != Io::kOk) return got.state;
  }
  input_start_ += body_.feed({input_.data() + input_start_, input_end_ - input_start_});
  return Io::kOk;
}

void Connection::begin_response(const Response& response) {
  const bool has_content = response.content_count != 0;
  const std::uint64_t length = has_content ? response.content_count : response.body.size();
  output_ = "HTTP/1.1 " + std::to_string(response.status) + ' ';
  output_.append(reason_of(response.status)).append("\r\nDate: ").append(date_now());
  output_ += "\r\nServer: kumo-bench\r\nx-amz-request-id: bench\r\n";
  if (response.status != 204) output_ += "Content-Length: " + std::to_string(length) + "\r\n";
  if (close_after_) output_ += "Connection: close\r\n";
  output_.append(response.headers).append("\r\n");
  output_sent_ = 0;
  content_left_ = 0;
  if (!response.head) {
    output_ += response.body;
    content_offset_ = response.content_offset;
    content_left_ = response.content_count;
    while (content_left_ != 0 && response.content_count <= kCopiedAtMost) {
      std::string_view piece = content_.at(content_offset_);
      piece = piece.substr(
          0, static_cast<std::size_t>(std::min<std::uint64_t>(content_left_, piece.size())));
      output_.append(piece);
      content_offset_ += piece.size();
      content_left_ -= piece.size();
    }
  }
  state_ = State::kResponse;
}

Io Connection::send_response() {
  if (output_sent_ != output_.size()) {
    const std::string_view rest = std::string_view(output_).substr(output_sent_);
    const Moved sent = transport_->write(rest, content_left_ != 0);
    output_sent_ += sent.bytes;
    return sent.state;
  }
  if (content_left_ != 0) {
    const Moved sent = transport_->write_content(content_, content_offset_, content_left_);
    content_offset_ += sent.bytes;
    content_left_ -= sent.bytes;
    return sent.state;
  }
  const Io flushed = transport_->flush();
  if (flushed != Io::kOk) return flushed;
  if (close_after_) return Io::kClosed;
  state_ = State::kHead;
  return Io::kOk;
}

Io Connection::refuse(std::string_view why) {
  close_after_ = true;
  begin_response(error_response(400, "InvalidRequest", why));
  return Io::kOk;
}

}  // namespace kumo::bench
