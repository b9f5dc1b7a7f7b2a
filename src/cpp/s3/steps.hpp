#pragma once

#include "s3/operation.hpp"

namespace kumo::s3 {

// The C callbacks between the steps of an operation. The user data of each is a heap-allocated
// shared_ptr<Operation>, which the step that comes last frees. Exceptions must not cross into C.
struct Steps {
  using Self = std::unique_ptr<std::shared_ptr<Operation>>;
  static Self keep(Operation& operation) {
    return std::make_unique<std::shared_ptr<Operation>>(operation.shared_from_this());
  }

  static void is_signed(aws_signing_result* result, int error_code, void* self);
  static void connected(aws_http_connection* connection, int error_code, void* self);
  static void install(aws_http_make_request_options& options);

 private:
  static int headers(aws_http_stream*, aws_http_header_block block, const aws_http_header* headers,
                     std::size_t count, void* self);
  static int headers_done(aws_http_stream* stream, aws_http_header_block block, void* self);
  static int body(aws_http_stream*, const aws_byte_cursor* data, void* self);
  static void metrics(aws_http_stream*, const aws_http_stream_metrics* metrics, void* self);
  static void complete(aws_http_stream*, int error_code, void* self);
};

}  // namespace kumo::s3
