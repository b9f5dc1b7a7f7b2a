#pragma once

#include <aws/http/request_response.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "s3/request.hpp"

namespace kumo::s3 {

// Takes in the answer to one request, on the connection's event loop: headers, then the body into
// the request's sink, an error's document into the response. Nothing is copied twice: the sink
// gets each piece from the buffer that it was received into, while it is hot.
class Receiver {
 public:
  Receiver(const Request& request, Response& response) : request_(request), response_(response) {}

  // AWS_OP_ERR ends the connection; `refusal` says why, unless the answer was `truncated`.
  int on_headers(const aws_http_header* headers, std::size_t count);
  int on_headers_done(int status);
  int on_body(const aws_byte_cursor& body);
  // Whether the answer came to its end as its headers promised, and not before the whole request
  // was `taken` by the connection: no service has stored what it was not sent.
  void check_complete(bool taken);

  [[nodiscard]] std::uint64_t transferred() const noexcept {
    return transferred_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t expected() const noexcept {
    return expected_.load(std::memory_order_relaxed);
  }
  // Why a callback ended the transfer; empty if none did.
  [[nodiscard]] const std::string& refusal() const noexcept { return refusal_; }
  [[nodiscard]] int refusal_code() const noexcept { return refusal_code_; }

 private:
  int deliver(const aws_byte_cursor& body);
  int refuse(int code, std::string text);
  int refuse_document(std::uint64_t limit);

  const Request& request_;
  Response& response_;
  std::size_t seen_ = 0;  // headers
  bool head_done_ = false;
  bool behind_ = false;                  // what comes is not of this answer, or its trailers
  std::optional<std::uint64_t> length_;  // announced
  bool chunked_ = false;
  bool coded_ = false;         // compressed for the transfer, which nobody asked for
  std::uint64_t stop_at_ = 0;  // where to cut the body; 0: nowhere
  std::string refusal_;
  int refusal_code_ = 0;
  std::atomic<std::uint64_t> transferred_{0};
  std::atomic<std::uint64_t> expected_{0};
};

}  // namespace kumo::s3
