#include "s3/receiver.hpp"

#include <aws/io/io.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>

#include "checksum/crc32c.hpp"
#include "crt/handle.hpp"

namespace kumo::s3 {
namespace {

// More of an error's document than any message needs.
constexpr std::size_t kMaxErrorBody = 65'536;
// Past this a server does not mean to answer.
constexpr std::size_t kMaxHeaders = 1'000;

}  // namespace

int Receiver::refuse(int code, std::string text) {
  refusal_ = std::move(text);
  refusal_code_ = code;
  return aws_raise_error(code);
}

int Receiver::refuse_document(std::uint64_t limit) {
  return refuse(AWS_ERROR_HTTP_PROTOCOL_ERROR, "the answer has more than " + std::to_string(limit) +
                                                   " bytes, where S3 sends a short document");
}

int Receiver::on_headers(const aws_http_header* headers, std::size_t count) {
  seen_ += count;
  if (seen_ > kMaxHeaders) {
    return refuse(AWS_ERROR_HTTP_PROTOCOL_ERROR, "the answer has too many headers");
  }
  // Trailers, or another answer: aws-c-http gives a request whose body is still being sent all that
  // comes, and one that was refused early may have its body taken for the next request.
  behind_ = head_done_;
  if (behind_) return AWS_OP_SUCCESS;
  for (std::size_t i = 0; i < count; ++i) {
    const aws_http_header& header = headers[i];
    response_.headers.emplace_back(crt::view(header.name), crt::view(header.value));
    if (aws_byte_cursor_eq_c_str_ignore_case(&header.name, "content-length")) {
      std::uint64_t length = 0;
      if (aws_byte_cursor_utf8_parse_u64(header.value, &length) == AWS_OP_SUCCESS) {
        length_ = length;
      }
    } else if (aws_byte_cursor_eq_c_str_ignore_case(&header.name, "transfer-encoding")) {
      const bool chunked = aws_byte_cursor_eq_c_str_ignore_case(&header.value, "chunked");
      (chunked ? chunked_ : coded_) = true;
    }
  }
  return AWS_OP_SUCCESS;
}

int Receiver::on_headers_done(int status) {
  head_done_ = true;
  response_.status = status;
  const bool success = status >= 200 && status < 300;
  if (!success || request_.method == "HEAD") return AWS_OP_SUCCESS;
  if (coded_) {
    // What came would be taken for the content; aws-c-http takes it for none if it is not chunked.
    return refuse(AWS_ERROR_HTTP_PROTOCOL_ERROR,
                  "the answer comes in a transfer encoding that was not asked for");
  }
  if (!length_ && !chunked_ && status != 204 && request_.method == "GET") {
    // aws-c-http takes that for an empty body.
    return refuse(AWS_ERROR_HTTP_PROTOCOL_ERROR, "the answer does not say how long its body is");
  }
  const std::uint64_t length = length_.value_or(0);
  expected_.store(length, std::memory_order_relaxed);
  if (request_.stop_after != 0 && length / 2 >= request_.stop_after) {
    stop_at_ = request_.stop_after;
  }
  if (const auto* memory = std::get_if<MemorySink>(&request_.sink)) {
    if (length > memory->capacity) {
      return refuse(AWS_ERROR_SHORT_BUFFER, "the content has " + std::to_string(length) +
                                                " bytes, the buffer only " +
                                                std::to_string(memory->capacity));
    }
  } else if (const auto* collect = std::get_if<CollectSink>(&request_.sink)) {
    if (length > collect->limit) return refuse_document(collect->limit);
    if (length == 0) return AWS_OP_SUCCESS;
    try {
      response_.body = async::AlignedBuffer(length);
    } catch (const std::bad_alloc&) {
      return refuse(AWS_ERROR_OOM, "no memory for a body of " + std::to_string(length) + " bytes");
    }
  }
  return AWS_OP_SUCCESS;
}

int Receiver::on_body(const aws_byte_cursor& body) {
  if (behind_) return AWS_OP_SUCCESS;
  if (response_.status < 200 || response_.status >= 300) {
    const std::size_t room = kMaxErrorBody - std::min(kMaxErrorBody, response_.error_body.size());
    response_.error_body.append(reinterpret_cast<const char*>(body.ptr), std::min(room, body.len));
    return AWS_OP_SUCCESS;
  }
  aws_byte_cursor piece = body;
  if (stop_at_ != 0) {
    piece.len =
        std::min<std::size_t>(piece.len, static_cast<std::size_t>(stop_at_ - response_.received));
  }
  if (request_.crc32c_of_response) {
    response_.crc32c_received = checksum::crc32c(piece.ptr, piece.len, response_.crc32c_received);
  }
  if (deliver(piece) != AWS_OP_SUCCESS) return AWS_OP_ERR;
  response_.received += piece.len;
  transferred_.store(response_.received, std::memory_order_relaxed);
  if (stop_at_ != 0 && response_.received == stop_at_) {
    response_.truncated = true;
    return aws_raise_error(AWS_ERROR_HTTP_CALLBACK_FAILURE);
  }
  return AWS_OP_SUCCESS;
}

int Receiver::deliver(const aws_byte_cursor& body) {
  const std::uint64_t offset = response_.received;
  if (const auto* memory = std::get_if<MemorySink>(&request_.sink)) {
    if (body.len > memory->capacity || offset > memory->capacity - body.len) {
      return refuse(AWS_ERROR_SHORT_BUFFER, "the content is larger than the buffer of " +
                                                std::to_string(memory->capacity) + " bytes");
    }
    std::memcpy(memory->data + offset, body.ptr, body.len);
  } else if (const auto* file = std::get_if<FileSink>(&request_.sink)) {
    std::size_t done = 0;
    while (done < body.len) {
      const ssize_t put = ::pwrite(file->fd.get(), body.ptr + done, body.len - done,
                                   static_cast<off_t>(file->offset + offset + done));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) {
        return refuse(AWS_ERROR_FILE_WRITE_FAILURE,
                      "writing the file: " + std::generic_category().message(errno));
      }
      done += static_cast<std::size_t>(put);
    }
  } else if (const auto* collect = std::get_if<CollectSink>(&request_.sink)) {
    if (offset + body.len > collect->limit) return refuse_document(collect->limit);
    if (offset + body.len > response_.body.capacity()) {
      // No Content-Length: grow.
      try {
        async::AlignedBuffer grown(std::max<std::size_t>(
            static_cast<std::size_t>(offset) + body.len, 2 * static_cast<std::size_t>(offset)));
        if (offset != 0) {
          std::memcpy(grown.data(), response_.body.data(), static_cast<std::size_t>(offset));
        }
        response_.body = std::move(grown);
      } catch (const std::bad_alloc&) {
        return refuse(AWS_ERROR_OOM, "no memory for the body");
      }
    }
    std::memcpy(response_.body.data() + offset, body.ptr, body.len);
    response_.body_size = static_cast<std::size_t>(offset) + body.len;
  }
  return AWS_OP_SUCCESS;
}

void Receiver::check_complete(bool taken) {
  const bool success = response_.status >= 200 && response_.status < 300;
  if (success && !taken) {
    (void)refuse(AWS_ERROR_HTTP_CONNECTION_CLOSED,
                 "the service answered before it had the whole body");
    return;
  }
  if (!success || request_.method == "HEAD" || !length_ || response_.truncated) return;
  if (response_.received != *length_) {
    (void)refuse(AWS_ERROR_HTTP_CONNECTION_CLOSED,
                 std::to_string(response_.received) + " bytes arrived where " +
                     std::to_string(*length_) + " were announced");
  }
}

}  // namespace kumo::s3
