#pragma once

#include <aws/http/connection.h>
#include <aws/io/channel.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace kumo::http {

// Who lends memory to a connection. Told of each piece, on the connection's event loop.
class Lender {
 public:
  virtual ~Lender() = default;
  virtual void lent() noexcept = 0;
  virtual void returned() noexcept = 0;
};

// A fast lane through a connection's channel, between its HTTP handler and what is left of that.
//
// aws-c-http copies every request body into messages of its own, and clears them after use. In the
// lane the place that a body was to be copied to is exchanged for the lender's memory, so that the
// socket (or TLS) reads from there; and messages go back to their pool without being cleared. It
// uses the public interface of channels alone: a handler that passes messages.
//
// Threads: everything on the connection's event loop. A piece that was lent is read until it is
// returned, which may be after the HTTP stream is over: the socket may still have it queued.
// The channel owns the lane.
class Lane {
 public:
  // That of a connection, made when asked for the first time; nullptr if that is not possible.
  static Lane* of(aws_http_connection* connection) noexcept;

  // The `size` bytes that HTTP is about to send from `place` stand for those at `data`.
  void lend(const std::uint8_t* place, const std::uint8_t* data, std::size_t size,
            std::shared_ptr<Lender> lender);

  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

 private:
  friend struct LaneHandler;
  struct Piece {
    const std::uint8_t* place = nullptr;
    const std::uint8_t* data = nullptr;
    std::size_t size = 0;
    std::shared_ptr<Lender> lender;
  };

  static Lane* insert_left(aws_channel_slot* of) noexcept;
  explicit Lane(aws_channel_slot* slot) noexcept : slot_(slot) {}
  ~Lane() = default;

  int write(aws_io_message* message);
  int pass(aws_io_message* message, aws_channel_direction direction);
  int send(aws_io_message* message, aws_channel_direction direction);

  aws_channel_slot* slot_;
  aws_channel_handler handler_{};
  Piece next_;  // lent, and not yet met in a message
};

}  // namespace kumo::http
