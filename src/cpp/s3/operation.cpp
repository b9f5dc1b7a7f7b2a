#include "s3/operation.hpp"

#include <aws/io/stream.h>
#include <aws/io/uri.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <unordered_set>

#include "async/io_threads.hpp"
#include "checksum/crc32c.hpp"
#include "crt/error.hpp"
#include "kumo_build_config.h"
#include "s3/callbacks.hpp"

namespace kumo::s3 {
namespace {

// Small enough to be hot in L2 when its checksum is taken.
constexpr std::size_t kReadBlock = 262'144;
// Checksumming less than this on the caller's thread is cheaper than a thread switch.
constexpr std::size_t kInlineChecksum = 65'536;
// More of an error's document than any message needs.
constexpr std::size_t kMaxErrorBody = 65'536;

struct Registry {
  std::mutex mutex;
  std::condition_variable changed;
  std::unordered_set<Operation*> operations;
};

Registry& registry() {
  static Registry* state = new Registry();  // leaked: callbacks may come very late
  return *state;
}

std::string errno_text(const char* doing, int error) {
  return std::string(doing) + ": " + std::generic_category().message(error);
}

Headers copy_headers(const aws_http_headers* headers) {
  Headers out;
  for (std::size_t i = 0; i < aws_http_headers_count(headers); ++i) {
    aws_http_header header{};
    if (aws_http_headers_get_index(headers, i, &header) != AWS_OP_SUCCESS) continue;
    out.emplace_back(crt::view(header.name), crt::view(header.value));
  }
  return out;
}

}  // namespace

Operation::Operation(std::shared_ptr<Client> client, Request request,
                     std::shared_ptr<async::CompletionQueue> queue, std::uint64_t id)
    : client_(std::move(client)), request_(std::move(request)), queue_(std::move(queue)), id_(id) {}

Operation::~Operation() = default;

void Operation::start() {
  {
    Registry& all = registry();
    std::lock_guard lock(all.mutex);
    all.operations.insert(this);
  }
  const auto* memory = std::get_if<MemoryBody>(&request_.body);
  const bool heavy = std::holds_alternative<FileBody>(request_.body) ||
                     (memory != nullptr && request_.send_crc32c && memory->size > kInlineChecksum);
  if (!heavy) return prepare();
  try {
    async::IoThreads::instance().post([self = shared_from_this()] { self->prepare(); });
  } catch (const std::exception& error) {  // no memory, or no thread to be had
    fail(AWS_ERROR_OOM, std::string("starting an I/O thread: ") + error.what());
  }
}

void Operation::prepare() {
  try {
    if (const auto* memory = std::get_if<MemoryBody>(&request_.body)) {
      body_ = *memory;
      if (request_.send_crc32c) {
        response_.crc32c_sent = checksum::crc32c(body_.data, body_.size);
      }
    } else if (const auto* file = std::get_if<FileBody>(&request_.body)) {
      body_buffer_ = client_->buffers().acquire(file->size);
      std::size_t done = 0;
      while (done < file->size) {
        const std::size_t want = std::min(kReadBlock, file->size - done);
        const ssize_t got = ::pread(file->fd.get(), body_buffer_.data() + done, want,
                                    static_cast<off_t>(file->offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
          return fail(AWS_ERROR_FILE_READ_FAILURE, errno_text("reading the file", errno));
        if (got == 0) {
          return fail(AWS_ERROR_FILE_READ_FAILURE,
                      "the file became shorter while it was being sent: it ends at byte " +
                          std::to_string(file->offset + done));
        }
        const auto size = static_cast<std::size_t>(got);
        if (request_.send_crc32c) {
          response_.crc32c_sent =
              checksum::crc32c(body_buffer_.data() + done, size, response_.crc32c_sent);
        }
        done += size;
      }
      body_ = {body_buffer_.data(), file->size};
    }
    send();
  } catch (const crt::Error& error) {
    fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    fail(AWS_ERROR_OOM, "out of memory");
  }
}

Message Operation::build_message(std::size_t body_size) const {
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
    add("Content-Length", std::to_string(body_size));
  }
  if (request_.send_crc32c) {
    add("x-amz-checksum-crc32c", checksum::crc32c_base64(response_.crc32c_sent));
  }
  return message;
}

void Operation::send() {
  aws_allocator* allocator = aws_default_allocator();
  const Message message = build_message(body_.size);

  aws_s3_meta_request_options options{};
  options.type = request_.split_ranges ? AWS_S3_META_REQUEST_TYPE_GET_OBJECT
                                       : AWS_S3_META_REQUEST_TYPE_DEFAULT;
  options.operation_name = crt::cursor(request_.operation);
  options.message = message.get();
  options.part_size = request_.part_size;

  // The message takes a reference of its own.
  InputStream stream;
  if (body_.size != 0) {
    const aws_byte_cursor body = aws_byte_cursor_from_array(body_.data, body_.size);
#if KUMO_HAVE_REQUEST_BODY
    options.request_body = body;  // sent from where it is
#else
    stream.reset(crt::check_ptr(aws_input_stream_new_from_cursor(allocator, &body),
                                "making the body stream"));  // copied once by aws-c-s3
    aws_http_message_set_body_stream(message.get(), stream.get());
#endif
  }

  aws_uri endpoint{};
  const aws_byte_cursor endpoint_text = crt::cursor(request_.endpoint);
  crt::check(aws_uri_init_parse(&endpoint, allocator, &endpoint_text), "parsing the endpoint");
  const crt::Handle<aws_uri, aws_uri_clean_up> cleaner(&endpoint);
  options.endpoint = &endpoint;

  auto self = std::make_unique<std::shared_ptr<Operation>>(shared_from_this());
  Callbacks::install(options, self.get());

  // The lock keeps `cancel` from missing a request that is being made.
  std::lock_guard lock(mutex_);
  if (cancelled_) throw crt::Error(AWS_ERROR_S3_CANCELED, "sending the request");
  meta_request_ = crt::check_ptr(aws_s3_client_make_meta_request(client_->native(), &options),
                                 "sending the request");
  // Owned by the CRT until the shutdown callback.
  [[maybe_unused]] const auto* owned = self.release();
}

void Operation::cancel() noexcept {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (meta_request_ != nullptr) aws_s3_meta_request_cancel(meta_request_);
}

void Operation::fail(int error_code, std::string text) {
  response_.error_code = error_code != 0 ? error_code : AWS_ERROR_UNKNOWN;
  response_.error_name = crt::error_name(response_.error_code);
  response_.error_text = std::move(text);
  complete();
}

void Operation::complete() noexcept {
  client_->buffers().release(std::move(body_buffer_));
  const std::shared_ptr<async::CompletionQueue> queue = queue_;
  const std::uint64_t id = id_;
  bool push = false;
  {
    std::lock_guard lock(mutex_);
    push = !abandoned_.has_value();
    done_.store(true, std::memory_order_release);
  }
  {
    Registry& all = registry();
    std::lock_guard lock(all.mutex);
    all.operations.erase(this);
  }
  registry().changed.notify_all();
  if (push) queue->push(id);  // last: from here on the taker may destroy this
}

void Operation::abandon(int error_code) {
  {
    std::lock_guard lock(mutex_);
    if (done() || has_headers_ || abandoned_) return;
    abandoned_.emplace();
    abandoned_->error_code = error_code;
    abandoned_->error_name = crt::error_name(error_code);
    abandoned_->error_text = crt::error_text(error_code);
    cancelled_ = true;
    if (meta_request_ != nullptr) aws_s3_meta_request_cancel(meta_request_);
  }
  queue_->push(id_);
}

bool Operation::answered() {
  std::lock_guard lock(mutex_);
  return done() || abandoned_.has_value();
}

Response Operation::take_response() {
  std::lock_guard lock(mutex_);
  return abandoned_ ? std::move(*abandoned_) : std::move(response_);
}

int Operation::refuse(std::string text) {
  refusal_ = std::move(text);
  return aws_raise_error(AWS_ERROR_S3_CANCELED);
}

int Operation::on_headers(const aws_http_headers* headers, int status) {
  {
    std::lock_guard lock(mutex_);
    has_headers_ = true;
  }
  response_.status = status;
  std::uint64_t length = 0;
  response_.headers = copy_headers(headers);
  for (const auto& [name, value] : response_.headers) {
    const aws_byte_cursor header = crt::cursor(name);
    if (aws_byte_cursor_eq_c_str_ignore_case(&header, "content-length")) {
      (void)aws_byte_cursor_utf8_parse_u64(crt::cursor(value), &length);
    }
  }
  const bool success = status >= 200 && status < 300;
  if (!success || request_.method == "HEAD") return AWS_OP_SUCCESS;
  expected_.store(length, std::memory_order_relaxed);
  if (const auto* memory = std::get_if<MemorySink>(&request_.sink)) {
    if (length > memory->capacity) {
      return refuse("the object has " + std::to_string(length) + " bytes, the buffer only " +
                    std::to_string(memory->capacity));
    }
  } else if (std::holds_alternative<CollectSink>(request_.sink) && length != 0) {
    try {
      response_.body = async::AlignedBuffer(length);
    } catch (const std::bad_alloc&) {
      return refuse("no memory for a body of " + std::to_string(length) + " bytes");
    }
  }
  return AWS_OP_SUCCESS;
}

int Operation::on_body(const aws_byte_cursor& body, std::uint64_t range_start) {
  // Positions given by aws-c-s3 are the object's; the sink's begin at the first byte asked for.
  if (!range_base_) range_base_ = range_start;
  const std::uint64_t offset = range_start - *range_base_;
  if (range_start < *range_base_ || offset != response_.received) {
    return refuse("the body arrived out of order at byte " + std::to_string(range_start));
  }
  if (request_.crc32c_of_response) {
    response_.crc32c_received = checksum::crc32c(body.ptr, body.len, response_.crc32c_received);
  }
  const int result = deliver(body, offset);
  if (result == AWS_OP_SUCCESS) {
    response_.received += body.len;
    transferred_.store(response_.received, std::memory_order_relaxed);
  }
  return result;
}

int Operation::deliver(const aws_byte_cursor& body, std::uint64_t offset) {
  if (const auto* memory = std::get_if<MemorySink>(&request_.sink)) {
    if (body.len > memory->capacity || offset > memory->capacity - body.len) {
      return refuse("the object is larger than the buffer of " + std::to_string(memory->capacity) +
                    " bytes");
    }
    std::memcpy(memory->data + offset, body.ptr, body.len);
  } else if (const auto* file = std::get_if<FileSink>(&request_.sink)) {
    std::size_t done = 0;
    while (done < body.len) {
      const ssize_t put = ::pwrite(file->fd.get(), body.ptr + done, body.len - done,
                                   static_cast<off_t>(file->offset + offset + done));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return refuse(errno_text("writing the file", errno));
      done += static_cast<std::size_t>(put);
    }
  } else if (std::holds_alternative<CollectSink>(request_.sink)) {
    if (offset + body.len > response_.body.capacity()) {
      // No Content-Length, or a wrong one: grow.
      try {
        async::AlignedBuffer grown(std::max<std::size_t>(offset + body.len, 2 * offset));
        if (offset != 0) std::memcpy(grown.data(), response_.body.data(), offset);
        response_.body = std::move(grown);
      } catch (const std::bad_alloc&) {
        return refuse("no memory for the body");
      }
    }
    std::memcpy(response_.body.data() + offset, body.ptr, body.len);
    response_.body_size = static_cast<std::size_t>(offset) + body.len;
  }
  return AWS_OP_SUCCESS;
}

void Operation::on_attempt(aws_s3_request_metrics* metrics) {
  const int error = aws_s3_request_metrics_get_error_code(metrics);
  if (error == AWS_ERROR_SUCCESS || error == AWS_ERROR_S3_CANCELED) return;
  int status = 0;
  Headers answer;
  aws_http_headers* headers = nullptr;
  if (aws_s3_request_metrics_get_response_status_code(metrics, &status) == AWS_OP_SUCCESS &&
      aws_s3_request_metrics_get_response_headers(metrics, &headers) == AWS_OP_SUCCESS) {
    answer = copy_headers(headers);
  }
  // Attempts at the parts of one download end on several threads. Not `mutex_`: that is held while
  // the CRT is called.
  std::lock_guard lock(attempt_mutex_);
  attempt_error_ = error;
  attempt_status_ = status;
  attempt_headers_ = std::move(answer);
}

void Operation::on_finish(const aws_s3_meta_request_result& result) {
  response_.error_code = result.error_code;
  if (result.response_status != 0) response_.status = result.response_status;
  if (result.error_code != AWS_ERROR_SUCCESS) {
    std::lock_guard lock(attempt_mutex_);
    // With the retries used up, aws-c-s3 tells that, and not what went wrong.
    if ((result.error_code == AWS_IO_MAX_RETRIES_EXCEEDED ||
         result.error_code == AWS_IO_RETRY_PERMISSION_DENIED) &&
        attempt_error_ != 0) {
      response_.error_code = attempt_error_;
    }
    response_.error_name = crt::error_name(response_.error_code);
    response_.error_text =
        refusal_.empty() ? crt::error_text(response_.error_code) : std::move(refusal_);
    if (result.error_response_headers != nullptr) {
      response_.headers = copy_headers(result.error_response_headers);
    } else if (response_.status == 0 && attempt_status_ >= 300) {
      response_.status = attempt_status_;
      response_.headers = std::move(attempt_headers_);
    }
    if (result.error_response_body != nullptr) {
      response_.error_body.assign(reinterpret_cast<const char*>(result.error_response_body->buffer),
                                  std::min(result.error_response_body->len, kMaxErrorBody));
    }
  }
}

void Operation::release_request() noexcept {
  aws_s3_meta_request* meta_request = nullptr;
  {
    std::lock_guard lock(mutex_);
    std::swap(meta_request, meta_request_);
  }
  aws_s3_meta_request_release(meta_request);
}

void abandon_waiting(const TlsWatch* watch, int error_code) {
  Registry& all = registry();
  std::lock_guard lock(all.mutex);
  for (Operation* operation : all.operations) {
    if (operation->belongs_to(watch)) operation->abandon(error_code);
  }
}

bool cancel_all(std::chrono::milliseconds timeout) {
  Registry& all = registry();
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::unique_lock lock(all.mutex);
  // An operation in the set cannot end while the lock is held, so the pointers are good.
  for (Operation* operation : all.operations) operation->cancel();
  return all.changed.wait_until(lock, deadline, [&] { return all.operations.empty(); });
}

}  // namespace kumo::s3
