#include "s3/steps.hpp"

#include <aws/auth/signing_result.h>

#include <exception>

#include "crt/error.hpp"

namespace kumo::s3 {
namespace {

Operation& operation(void* self) { return **static_cast<std::shared_ptr<Operation>*>(self); }

constexpr std::uint64_t kLaneAbove = 262'144;

Steps::Self take(void* self) { return Steps::Self(static_cast<std::shared_ptr<Operation>*>(self)); }

}  // namespace

void Steps::is_signed(aws_signing_result* result, int error_code, void* self) {
  const Self owner = take(self);
  Operation& current = **owner;
  try {
    if (error_code == AWS_ERROR_SUCCESS &&
        aws_apply_signing_result_to_http_request(current.message_.get(), aws_default_allocator(),
                                                 result) != AWS_OP_SUCCESS) {
      error_code = aws_last_error();
    }
    if (error_code != AWS_ERROR_SUCCESS) {
      return current.fail(error_code, crt::error_text(error_code));
    }
    if (current.stopped()) return current.end_waiting(AWS_ERROR_S3_CANCELED);
    current.wait_for_connection();
  } catch (const crt::Error& error) {
    current.fail(error.code(), error.what());
  } catch (const std::exception& error) {
    current.fail(AWS_ERROR_OOM, error.what());
  }
}

void Steps::connected(aws_http_connection* connection, int error_code, void* self) {
  const Self owner = take(self);
  Operation& current = **owner;
  try {
    if (connection == nullptr) return current.fail(error_code, crt::error_text(error_code));
    current.send(connection);
  } catch (const std::exception& error) {
    current.fail(AWS_ERROR_OOM, error.what());
  }
}

void Steps::install(aws_http_make_request_options& options) {
  options.on_response_headers = headers;
  options.on_response_header_block_done = headers_done;
  options.on_response_body = body;
  options.on_metrics = metrics;
  options.on_complete = complete;
}

int Steps::headers(aws_http_stream*, aws_http_header_block block, const aws_http_header* headers,
                   std::size_t count, void* self) {
  if (block != AWS_HTTP_HEADER_BLOCK_MAIN) return AWS_OP_SUCCESS;
  try {
    return operation(self).receiver_.on_headers(headers, count);
  } catch (const std::exception&) {
    return aws_raise_error(AWS_ERROR_OOM);
  }
}

int Steps::headers_done(aws_http_stream* stream, aws_http_header_block block, void* self) {
  if (block != AWS_HTTP_HEADER_BLOCK_MAIN) return AWS_OP_SUCCESS;
  try {
    int status = 0;
    if (aws_http_stream_get_incoming_response_status(stream, &status) != AWS_OP_SUCCESS) {
      return AWS_OP_ERR;
    }
    Operation& current = operation(self);
    const int result = current.receiver_.on_headers_done(status);
    // Long answers are worth the lane, which saves the clearing of what was received.
    if (current.expected() >= kLaneAbove)
      (void)http::Lane::of(aws_http_stream_get_connection(stream));
    return result;
  } catch (const std::exception&) {
    return aws_raise_error(AWS_ERROR_OOM);
  }
}

int Steps::body(aws_http_stream*, const aws_byte_cursor* data, void* self) {
  try {
    return operation(self).receiver_.on_body(*data);
  } catch (const std::exception&) {
    return aws_raise_error(AWS_ERROR_OOM);
  }
}

void Steps::metrics(aws_http_stream*, const aws_http_stream_metrics* metrics, void* self) {
  if (metrics->send_start_timestamp_ns < 0 || metrics->receive_start_timestamp_ns < 0) return;
  operation(self).first_byte_ns_ =
      metrics->receive_start_timestamp_ns - metrics->send_start_timestamp_ns;
}

void Steps::complete(aws_http_stream*, int error_code, void* self) {
  const Self owner = take(self);
  try {
    (*owner)->finish(error_code);
  } catch (const std::exception&) {
    // Out of memory for the words of an error: its code has to say it.
    (*owner)->response_.error_text.clear();
  }
  (*owner)->end_stream();
}

}  // namespace kumo::s3
