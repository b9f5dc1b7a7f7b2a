#include "s3/callbacks.hpp"

#include <exception>

namespace kumo::s3 {
namespace {

Operation& operation(void* self) { return **static_cast<std::shared_ptr<Operation>*>(self); }

}  // namespace

void Callbacks::install(aws_s3_meta_request_options& options, std::shared_ptr<Operation>* self) {
  options.user_data = self;
  options.headers_callback = headers;
  options.body_callback = body;
  options.telemetry_callback = telemetry;
  options.finish_callback = finish;
  options.shutdown_callback = shutdown;
}

int Callbacks::headers(aws_s3_meta_request*, const aws_http_headers* headers, int status,
                       void* self) {
  try {
    return operation(self).on_headers(headers, status);
  } catch (const std::exception&) {
    return aws_raise_error(AWS_ERROR_OOM);
  }
}

int Callbacks::body(aws_s3_meta_request*, const aws_byte_cursor* body, std::uint64_t range_start,
                    void* self) {
  try {
    return operation(self).on_body(*body, range_start);
  } catch (const std::exception&) {
    return aws_raise_error(AWS_ERROR_OOM);
  }
}

void Callbacks::telemetry(aws_s3_meta_request*, aws_s3_request_metrics* metrics, void* self) {
  try {
    operation(self).on_attempt(metrics);
  } catch (const std::exception&) {
    return;  // out of memory: the attempt's answer is not known, its error is
  }
}

void Callbacks::finish(aws_s3_meta_request*, const aws_s3_meta_request_result* result, void* self) {
  Operation& finished = operation(self);
  try {
    finished.on_finish(*result);
  } catch (const std::exception&) {
    finished.response_.error_text.clear();  // out of memory: its code has to say it
  }
  finished.release_request();
}

void Callbacks::shutdown(void* self) {
  const std::unique_ptr<std::shared_ptr<Operation>> owner(
      static_cast<std::shared_ptr<Operation>*>(self));
  (*owner)->complete();
}

}  // namespace kumo::s3
