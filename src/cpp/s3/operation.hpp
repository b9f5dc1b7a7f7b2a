#pragma once

#include <aws/auth/signable.h>
#include <aws/auth/signing.h>
#include <aws/http/request_response.h>
#include <aws/io/stream.h>
#include <aws/s3/s3.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "async/completion_queue.hpp"
#include "crt/deadline.hpp"
#include "crt/handle.hpp"
#include "http/frame.hpp"
#include "http/lent_body.hpp"
#include "s3/client.hpp"
#include "s3/file_stream.hpp"
#include "s3/receiver.hpp"
#include "s3/request.hpp"

namespace kumo::s3 {

using Message = crt::Handle<aws_http_message, aws_http_message_release>;
using Signable = crt::Handle<aws_signable, aws_signable_destroy>;
using InputStream = crt::Handle<aws_input_stream, aws_input_stream_release>;

// One attempt at one request: its body is read and checksummed (or is when it is sent), it is
// signed, waits for a connection, is sent, and its answer received. Trying again is the caller's
// business.
//
// Ownership: Python and the native side each hold a shared_ptr. The native one passes from step to
// step (I/O thread job, signing, waiting, stream). The id is pushed to the queue when nothing
// native will touch what was lent any more: whoever takes it from there may free or change that.
// Pieces of the body that the connection still has queued delay the end of a stream that is over.
// A cancelled operation that still waits for its signature or its connection is over at once, and
// lets the step that comes later find it so.
//
// Threads: `start` and `cancel` come from Python threads without needing the GIL, `prepare` runs
// there or on an I/O thread, everything after it on any CRT thread. None of them touches Python.
// `take_response()` may be called by the thread that took the id from the queue.
class Operation : public http::Lender, public std::enable_shared_from_this<Operation> {
 public:
  Operation(std::shared_ptr<Client> client, Request request,
            std::shared_ptr<async::CompletionQueue> queue, std::uint64_t id);
  ~Operation() override;
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  void start();
  void cancel() noexcept;

  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] bool done() const noexcept { return done_.load(std::memory_order_acquire); }
  // Body bytes received so far.
  [[nodiscard]] std::uint64_t transferred() const noexcept { return receiver_.transferred(); }
  // Bytes that the answer announced; 0 before it came, or without a Content-Length.
  [[nodiscard]] std::uint64_t expected() const noexcept { return receiver_.expected(); }
  // Once, when it is over.
  [[nodiscard]] Response take_response() { return std::exchange(response_, {}); }

  // Ends an operation that has no connection yet, with an error.
  void end_waiting(int error_code) noexcept;
  [[nodiscard]] bool belongs_to(const TlsWatch* watch) const noexcept {
    return client_->watch() == watch;
  }

 private:
  friend struct Steps;  // the C callbacks
  using Clock = std::chrono::steady_clock;

  void prepare();  // reads and checksums the body
  void sign();
  void sign_with(const crt::Credentials::Issued& issued);
  void issued(const crt::Credentials::Issued& issued) noexcept;  // after a wait for them
  void wait_for_connection();
  void send(aws_http_connection* connection);
  [[nodiscard]] Message build_message();
  [[nodiscard]] std::size_t body_size() const noexcept;
  [[nodiscard]] bool body_taken() const noexcept;  // all of it, by the connection

  // Of http::Lender: pieces of the body that the connection is going to read.
  void lent() noexcept override { ++lent_; }
  void returned() noexcept override;

  void fail(int error_code, std::string text);
  void finish(int error_code);  // takes what the stream ended with
  void end_stream() noexcept;   // it will not call back any more
  void complete() noexcept;
  // Whether it was cancelled or ended meanwhile.
  [[nodiscard]] bool stopped();

  const std::shared_ptr<Client> client_;
  Request request_;
  const std::shared_ptr<async::CompletionQueue> queue_;
  const std::uint64_t id_;
  Clock::time_point started_;

  std::optional<http::Frame> frame_;     // with a trailing checksum
  std::string read_error_;               // why a file could not be read while it was sent
  http::LentBody* lent_body_ = nullptr;  // these two belong to message_
  FileStream* file_stream_ = nullptr;
  Message message_;
  Signable signable_;
  const http::ConnectionPool* pool_ = nullptr;  // of client_
  aws_http_connection* connection_ = nullptr;   // leased from pool_ while the stream lives
  std::int64_t first_byte_ns_ = -1;
  std::size_t lent_ = 0;  // these two: on the connection's event loop only
  bool stream_over_ = false;
  Response response_;
  Receiver receiver_;

  std::mutex mutex_;  // guards the four below
  aws_http_stream* stream_ = nullptr;
  bool cancelled_ = false;
  bool waiting_ = false;    // for a signature or a connection: can be ended at once
  bool completed_ = false;  // the answer is final

  std::atomic<bool> done_{false};
};

// Ends the operations of a client that wait for a connection, because none can be made.
void end_waiting(const TlsWatch* watch, int error_code);

// At interpreter exit: cancels every operation that is not over, and waits for their end. For a
// third of the time, those who clean up after that (abort an upload) may start further ones; then
// these are cancelled, too, and what is started later ends at once. False on timeout.
bool cancel_all(const crt::Deadline& deadline);

}  // namespace kumo::s3
