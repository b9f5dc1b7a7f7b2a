#pragma once

#include <aws/http/connection.h>
#include <aws/io/stream.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "http/frame.hpp"
#include "http/lane.hpp"

namespace kumo::http {

// A request body that is sent from where it is, through the connection's lane; copied only where
// there is none. As an aws_input_stream it is counted by references, like any other.
class LentBody {
 public:
  // The caller owns the one reference; `data` stays as it is until the lender got all back.
  // The stream keeps no reference to the lender, whose message holds the stream. `frame`, which
  // outlives the stream, is what goes around the data, if anything does.
  static LentBody* make(const std::uint8_t* data, std::size_t size, Frame* frame);

  // Before the request is made: where it goes, and who lends.
  void attach(aws_http_connection* connection, std::weak_ptr<Lender> lender) noexcept {
    connection_ = connection;
    lender_ = std::move(lender);
  }
  [[nodiscard]] aws_input_stream* stream() noexcept { return &base_; }
  // Whether the connection took all of it.
  [[nodiscard]] bool taken() const noexcept { return position_ == total(); }

  LentBody(const LentBody&) = delete;
  LentBody& operator=(const LentBody&) = delete;

 private:
  LentBody(const std::uint8_t* data, std::size_t size, Frame* frame);
  ~LentBody() = default;

  static LentBody& self(aws_input_stream* stream) { return *static_cast<LentBody*>(stream->impl); }
  static int seek(aws_input_stream* stream, std::int64_t offset, aws_stream_seek_basis basis);
  static int read(aws_input_stream* stream, aws_byte_buf* into);
  static int status(aws_input_stream* stream, aws_stream_status* status);
  static int length(aws_input_stream* stream, std::int64_t* length);

  [[nodiscard]] std::size_t total() const noexcept;
  // Data for a place in a message: lent, or, false, copied.
  bool give(std::size_t offset, std::uint8_t* place, std::size_t size);

  static const aws_input_stream_vtable kVtable;

  aws_input_stream base_{};
  const std::uint8_t* data_;
  std::size_t size_;
  Frame* frame_;
  std::size_t position_ = 0;  // in data and frame together
  aws_http_connection* connection_ = nullptr;
  std::weak_ptr<Lender> lender_;
};

}  // namespace kumo::http
