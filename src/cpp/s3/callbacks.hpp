#pragma once

#include "s3/operation.hpp"

namespace kumo::s3 {

// The C callbacks of a meta request. `user_data` is a heap-allocated shared_ptr<Operation>, freed
// by the shutdown callback. Exceptions must not cross into C.
struct Callbacks {
  static void install(aws_s3_meta_request_options& options, std::shared_ptr<Operation>* self);

 private:
  static int headers(aws_s3_meta_request*, const aws_http_headers* headers, int status, void* self);
  static int body(aws_s3_meta_request*, const aws_byte_cursor* body, std::uint64_t range_start,
                  void* self);
  static void telemetry(aws_s3_meta_request*, aws_s3_request_metrics* metrics, void* self);
  static void finish(aws_s3_meta_request*, const aws_s3_meta_request_result* result, void* self);
  static void shutdown(void* self);
};

}  // namespace kumo::s3
