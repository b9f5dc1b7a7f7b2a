#pragma once

#include <aws/http/request_response.h>
#include <aws/io/stream.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "async/completion_queue.hpp"
#include "crt/handle.hpp"
#include "s3/client.hpp"
#include "s3/request.hpp"

namespace kumo::s3 {

using Message = crt::Handle<aws_http_message, aws_http_message_release>;
using InputStream = crt::Handle<aws_input_stream, aws_input_stream_release>;

// One request in flight.
//
// Ownership: Python and the native side each hold a shared_ptr. The native one lives from `start`
// until the CRT's *shutdown* callback (or the failure before there was anything to shut down),
// because until then the CRT may read the borrowed body. Only then is the id pushed to the queue:
// whoever takes it from there may free or change what was lent.
//
// Threads: `start` and `cancel` come from Python threads without needing the GIL, `prepare` runs
// on an I/O thread, the `on_*` on event-loop threads. None of them touches Python.
// `response()` may be read by the thread that took the id from the queue.
class Operation : public std::enable_shared_from_this<Operation> {
 public:
  Operation(std::shared_ptr<Client> client, Request request,
            std::shared_ptr<async::CompletionQueue> queue, std::uint64_t id);
  ~Operation();
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  void start();
  void cancel() noexcept;

  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] bool done() const noexcept { return done_.load(std::memory_order_acquire); }
  // Body bytes received so far.
  [[nodiscard]] std::uint64_t transferred() const noexcept {
    return transferred_.load(std::memory_order_relaxed);
  }
  // Bytes that the answer announced; 0 before it came, or without a Content-Length.
  [[nodiscard]] std::uint64_t expected() const noexcept {
    return expected_.load(std::memory_order_relaxed);
  }
  // Whether the id was pushed: over, or abandoned.
  [[nodiscard]] bool answered();
  // The answer; with an abandoned operation the one it was abandoned with.
  [[nodiscard]] Response take_response();

  // Gives an operation that has no answer yet the error `error_code` at once, without waiting for
  // the CRT to let go of it: what it borrows stays borrowed until `done`.
  void abandon(int error_code);
  [[nodiscard]] bool belongs_to(const TlsWatch* watch) const noexcept {
    return client_->watch() == watch;
  }
  [[nodiscard]] const Request& request() const noexcept { return request_; }

 private:
  friend struct Callbacks;

  void prepare();  // reads and checksums the body
  void send();     // hands the request to aws-c-s3
  [[nodiscard]] Message build_message(std::size_t body_size) const;
  void fail(int error_code, std::string text);
  void complete() noexcept;

  int on_headers(const aws_http_headers* headers, int status);
  int on_body(const aws_byte_cursor& body, std::uint64_t range_start);
  void on_attempt(aws_s3_request_metrics* metrics);
  void on_finish(const aws_s3_meta_request_result& result);
  void release_request() noexcept;
  int deliver(const aws_byte_cursor& body, std::uint64_t offset);
  int refuse(std::string text);

  std::shared_ptr<Client> client_;
  Request request_;
  std::shared_ptr<async::CompletionQueue> queue_;
  const std::uint64_t id_;

  async::AlignedBuffer body_buffer_;  // holds the part read from a file
  MemoryBody body_{nullptr, 0};
  Response response_;
  std::string refusal_;                      // why a callback of ours stopped the transfer
  std::optional<std::uint64_t> range_base_;  // object offset of the first byte asked for

  std::mutex attempt_mutex_;  // guards the three below
  // The last attempt that failed: what is known of it when the retries are used up.
  int attempt_error_ = 0;
  int attempt_status_ = 0;
  Headers attempt_headers_;

  std::mutex mutex_;  // guards the ones below
  aws_s3_meta_request* meta_request_ = nullptr;
  bool cancelled_ = false;
  bool has_headers_ = false;
  std::optional<Response> abandoned_;

  std::atomic<std::uint64_t> transferred_{0};
  std::atomic<std::uint64_t> expected_{0};
  std::atomic<bool> done_{false};
};

// Abandons the operations of a client that wait for a connection, because none can be made.
void abandon_waiting(const TlsWatch* watch, int error_code);

// Cancels every operation that is not over, and waits for their end. False on timeout.
bool cancel_all(std::chrono::milliseconds timeout);

}  // namespace kumo::s3
