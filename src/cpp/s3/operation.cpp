#include "s3/operation.hpp"

#include <aws/auth/signing_result.h>
#include <aws/http/connection.h>

#include <algorithm>
#include <condition_variable>
#include <unordered_set>

#include "async/io_threads.hpp"
#include "checksum/crc32c.hpp"
#include "crt/error.hpp"
#include "s3/steps.hpp"

namespace kumo::s3 {
namespace {

// Checksumming less than this on the caller's thread is cheaper than a thread switch.
constexpr std::size_t kInlineChecksum = 65'536;

struct Registry {
  std::mutex mutex;
  std::condition_variable changed;
  std::unordered_set<Operation*> operations;
  bool refusing = false;  // the process ends
};

Registry& registry() {
  static Registry* state = new Registry();  // leaked: callbacks may come very late
  return *state;
}

std::int64_t nanoseconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

}  // namespace

Operation::Operation(std::shared_ptr<Client> client, Request request,
                     std::shared_ptr<async::CompletionQueue> queue, std::uint64_t id)
    : client_(std::move(client)),
      request_(std::move(request)),
      queue_(std::move(queue)),
      id_(id),
      receiver_(request_, response_) {}

Operation::~Operation() = default;

std::size_t Operation::body_size() const noexcept {
  if (const auto* memory = std::get_if<MemoryBody>(&request_.body)) return memory->size;
  if (const auto* file = std::get_if<FileBody>(&request_.body)) return file->size;
  return 0;
}

bool Operation::body_taken() const noexcept {
  if (lent_body_ != nullptr) return lent_body_->taken();
  return file_stream_ == nullptr || file_stream_->taken();
}

void Operation::start() {
  started_ = Clock::now();
  bool refused = false;
  {
    Registry& all = registry();
    std::lock_guard lock(all.mutex);
    refused = all.refusing;
    if (!refused) all.operations.insert(this);
  }
  if (refused) return fail(AWS_ERROR_S3_CANCELED, crt::error_text(AWS_ERROR_S3_CANCELED));
  const bool reads_file = std::holds_alternative<FileBody>(request_.body);
  if (request_.send_crc32c && request_.crc32c_trailing && body_size() > 0) {
    frame_.emplace(body_size());
  }
  const bool heavy =
      request_.send_crc32c && !frame_ && (reads_file || body_size() > kInlineChecksum);
  if (!heavy) return prepare();
  try {
    async::IoThreads::instance().post([self = shared_from_this()] { self->prepare(); });
  } catch (const std::exception& error) {  // no memory, or no thread to be had
    fail(AWS_ERROR_OOM, std::string("starting an I/O thread: ") + error.what());
  }
}

bool Operation::stopped() {
  std::lock_guard lock(mutex_);
  return cancelled_ || completed_;
}

void Operation::prepare() {
  try {
    if (request_.send_crc32c && !frame_) {
      if (const auto* memory = std::get_if<MemoryBody>(&request_.body)) {
        response_.crc32c_sent = checksum::crc32c(memory->data, memory->size);
      } else if (const auto* file = std::get_if<FileBody>(&request_.body)) {
        response_.crc32c_sent = crc32c_of(*file, [this] { return stopped(); });
      }
    }
    sign();
  } catch (const crt::Error& error) {
    fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    fail(AWS_ERROR_OOM, "out of memory");
  }
}

Message Operation::build_message() {
  aws_allocator* allocator = aws_default_allocator();
  Message message(crt::check_ptr(aws_http_message_new_request(allocator), "making a request"));
  crt::check(aws_http_message_set_request_method(message.get(), crt::cursor(request_.method)),
             "setting the method");
  crt::check(aws_http_message_set_request_path(message.get(), crt::cursor(request_.target)),
             "setting the path");
  const auto add = [&](std::string_view name, std::string_view value) {
    aws_http_header header{};
    header.name = crt::cursor(name);
    header.value = crt::cursor(value);
    crt::check(aws_http_message_add_header(message.get(), header), "adding a header");
  };
  for (const auto& [name, value] : request_.headers) add(name, value);
  if (!std::holds_alternative<NoBody>(request_.body)) {
    add("Content-Length", std::to_string(frame_ ? frame_->total() : body_size()));
  }
  if (frame_) {
    add("Content-Encoding", "aws-chunked");
    add("x-amz-decoded-content-length", std::to_string(body_size()));
    add("x-amz-trailer", "x-amz-checksum-crc32c");
  } else if (request_.send_crc32c) {
    add("x-amz-checksum-crc32c", checksum::crc32c_base64(response_.crc32c_sent));
  }
  if (body_size() == 0) return message;
  // The message takes a reference of its own.
  InputStream stream;
  http::Frame* frame = frame_ ? &*frame_ : nullptr;
  if (const auto* memory = std::get_if<MemoryBody>(&request_.body)) {
    lent_body_ = http::LentBody::make(memory->data, memory->size, frame);
    stream.reset(lent_body_->stream());
  } else {
    file_stream_ = FileStream::make(std::get<FileBody>(request_.body), frame, read_error_);
    stream.reset(file_stream_->stream());
  }
  aws_http_message_set_body_stream(message.get(), stream.get());
  return message;
}

void Operation::sign() {
  message_ = build_message();
  signable_.reset(crt::check_ptr(
      aws_signable_new_http_request(aws_default_allocator(), message_.get()), "signing"));
  std::optional<crt::Credentials::Issued> found = client_->credentials().issue();
  {
    std::lock_guard lock(mutex_);
    if (cancelled_) throw crt::Error(AWS_ERROR_S3_CANCELED, "sending the request");
    waiting_ = true;
    if (found) response_.signed_with = found->generation;
  }
  if (found) return sign_with(*found);
  client_->credentials().wait(
      [self = shared_from_this()](const crt::Credentials::Issued& one) { self->issued(one); },
      request_.any_credentials);
}

void Operation::issued(const crt::Credentials::Issued& issued) noexcept {
  try {
    if (issued.value == nullptr) return fail(issued.error_code, issued.error_text);
    {
      std::lock_guard lock(mutex_);
      if (completed_) return;  // ended while it waited
      response_.signed_with = issued.generation;
    }
    sign_with(issued);
  } catch (const crt::Error& error) {
    fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    end_waiting(AWS_ERROR_OOM);
  }
}

void Operation::sign_with(const crt::Credentials::Issued& issued) {
  aws_signing_config_aws config = client_->signing_config(issued.value.get());
  if (frame_) config.signed_body_value = g_aws_signed_body_value_streaming_unsigned_payload_trailer;
  const auto* base = reinterpret_cast<const aws_signing_config_base*>(&config);
  auto self = Steps::keep(*this);
  crt::check(aws_sign_request_aws(aws_default_allocator(), signable_.get(), base, Steps::is_signed,
                                  self.get()),
             "signing");
  [[maybe_unused]] const auto* owned = self.release();  // by the callback
}

void Operation::wait_for_connection() {
  pool_ = &client_->pool(request_.endpoint);
  pool_->acquire(Steps::connected, Steps::keep(*this).release());
}

void Operation::send(aws_http_connection* connection) {
  aws_http_make_request_options options{};
  options.self_size = sizeof(options);
  options.request = message_.get();
  Steps::install(options);

  std::unique_lock lock(mutex_);
  if (completed_) {  // ended while it waited
    lock.unlock();
    pool_->release(connection);
    return;
  }
  waiting_ = false;
  connection_ = connection;
  if (lent_body_ != nullptr) lent_body_->attach(connection, weak_from_this());
  if (file_stream_ != nullptr) file_stream_->attach(connection);
  auto self = Steps::keep(*this);
  options.user_data = self.get();
  aws_http_stream* stream = aws_http_connection_make_request(connection, &options);
  // The lock keeps `cancel` from missing a stream that is being made.
  if (stream != nullptr && aws_http_stream_activate(stream) == AWS_OP_SUCCESS) {
    [[maybe_unused]] const auto* owned = self.release();  // by the completion callback
    stream_ = stream;
    return;
  }
  const int code = aws_last_error();
  connection_ = nullptr;
  lock.unlock();
  if (stream != nullptr) aws_http_stream_release(stream);
  pool_->release(connection);
  fail(code, "sending the request: " + crt::error_text(code));
}

void Operation::cancel() noexcept {
  std::unique_lock lock(mutex_);
  if (completed_) return;
  cancelled_ = true;
  if (stream_ != nullptr) {
    aws_http_stream* stream = aws_http_stream_acquire(stream_);
    lock.unlock();
    aws_http_stream_cancel(stream, AWS_ERROR_S3_CANCELED);
    aws_http_stream_release(stream);
    return;
  }
  lock.unlock();
  end_waiting(AWS_ERROR_S3_CANCELED);
}

void Operation::end_waiting(int error_code) noexcept {
  {
    std::lock_guard lock(mutex_);
    if (completed_ || !waiting_) return;
    completed_ = true;
    response_.error_code = error_code;
  }
  // Strings that do not fit into memory: the code has to say it.
  try {
    response_.error_name = crt::error_name(error_code);
    response_.error_text = crt::error_text(error_code);
  } catch (const std::bad_alloc&) {
    response_.error_text.clear();
  }
  complete();
}

void Operation::fail(int error_code, std::string text) {
  {
    std::lock_guard lock(mutex_);
    if (completed_) return;
    completed_ = true;
  }
  response_.error_code = error_code != 0 ? error_code : AWS_ERROR_UNKNOWN;
  response_.error_name = crt::error_name(response_.error_code);
  response_.error_text = std::move(text);
  complete();
}

void Operation::finish(int error_code) {
  aws_http_stream* stream = nullptr;
  aws_http_connection* connection = nullptr;
  {
    std::lock_guard lock(mutex_);
    std::swap(stream, stream_);
    std::swap(connection, connection_);
    completed_ = true;
  }
  if (stream != nullptr) aws_http_stream_release(stream);
  if (connection != nullptr) pool_->release(connection);
  if (frame_) response_.crc32c_sent = frame_->crc32c();
  if (error_code == AWS_ERROR_SUCCESS) receiver_.check_complete(body_taken());
  int code = receiver_.refusal_code() != 0 ? receiver_.refusal_code() : error_code;
  if (response_.truncated) {
    code = AWS_ERROR_SUCCESS;
    // Nothing where it went to another sink.
    if (response_.body) response_.body_size = static_cast<std::size_t>(receiver_.expected());
  }
  response_.error_code = code;
  if (code != AWS_ERROR_SUCCESS) {
    response_.error_name = crt::error_name(code);
    response_.error_text = !read_error_.empty()          ? read_error_
                           : receiver_.refusal().empty() ? crt::error_text(code)
                                                         : receiver_.refusal();
  }
}

void Operation::end_stream() noexcept {
  stream_over_ = true;
  if (lent_ == 0) complete();
}

void Operation::returned() noexcept {
  --lent_;
  if (stream_over_ && lent_ == 0) complete();
}

void Operation::complete() noexcept {
  try {
    Attempt attempt;
    attempt.success = response_.error_code == 0 && response_.status < 300;
    attempt.bytes_sent = attempt.success ? body_size() : 0;
    attempt.bytes_received = response_.received;
    attempt.latency_ns = nanoseconds(Clock::now() - started_);
    attempt.first_byte_ns = first_byte_ns_;
    client_->metrics().add(request_.operation, attempt);
  } catch (const std::bad_alloc&) {
    // An attempt that is not counted.
  }
  const std::shared_ptr<async::CompletionQueue> queue = queue_;
  const std::uint64_t id = id_;
  {
    Registry& all = registry();
    std::lock_guard lock(all.mutex);
    all.operations.erase(this);
    done_.store(true, std::memory_order_release);
    if (all.operations.empty()) all.changed.notify_all();
  }
  queue->push(id);  // last: from here on the taker may use what was lent
}

void end_waiting(const TlsWatch* watch, int error_code) {
  std::vector<std::shared_ptr<Operation>> found;
  {
    Registry& all = registry();
    std::lock_guard lock(all.mutex);
    for (Operation* operation : all.operations) {
      // One whose last owner is just gone has nobody to tell.
      if (!operation->belongs_to(watch)) continue;
      if (auto owned = operation->weak_from_this().lock()) found.push_back(std::move(owned));
    }
  }
  for (const auto& operation : found) operation->end_waiting(error_code);
}

namespace {

// Cancels what there is now, and waits until there is nothing.
bool cancel_registered(bool refuse_others, const crt::Deadline& deadline) {
  Registry& all = registry();
  std::vector<std::shared_ptr<Operation>> found;
  {
    std::lock_guard lock(all.mutex);
    all.refusing = refuse_others;
    for (Operation* operation : all.operations) {
      if (auto owned = operation->weak_from_this().lock()) found.push_back(std::move(owned));
    }
  }
  for (const auto& operation : found) operation->cancel();
  found.clear();
  std::unique_lock lock(all.mutex);
  return all.changed.wait_until(lock, deadline.at(), [&] { return all.operations.empty(); });
}

}  // namespace

bool cancel_all(const crt::Deadline& deadline) {
  (void)cancel_registered(false, crt::Deadline(deadline.left() / 3));
  return cancel_registered(true, deadline);
}

}  // namespace kumo::s3
