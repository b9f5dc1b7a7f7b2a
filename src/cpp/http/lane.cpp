#include "http/lane.hpp"

#include <aws/common/common.h>
#include <aws/io/io.h>
#include <aws/io/socket.h>
#include <aws/io/socket_channel_handler.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <new>
#include <utility>

namespace kumo::http {
namespace {

// A shorter message is cleared in less time than it takes to avoid that.
constexpr std::size_t kClearBelow = 4096;

// A message whose memory is somebody else's. The channel frees messages through their allocator,
// which here is a part of the message.
struct Borrowed {
  aws_io_message message{};
  aws_allocator allocator{};
  std::shared_ptr<Lender> lender;      // of a message to send
  aws_io_message* original = nullptr;  // of a received one

  Borrowed() {
    allocator.mem_acquire = [](aws_allocator*, std::size_t) -> void* { return nullptr; };
    allocator.mem_release = [](aws_allocator* self, void*) {
      delete static_cast<Borrowed*>(self->impl);
    };
    allocator.impl = this;
    message.allocator = &allocator;
    message.message_type = AWS_IO_MESSAGE_APPLICATION_DATA;
  }
  ~Borrowed() {
    if (lender != nullptr) lender->returned();
    if (original != nullptr) release_uncleared(original);
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

  // The pool clears as much as there is.
  static void release_uncleared(aws_io_message* message) {
    message->message_data.len = 0;
    aws_mem_release(message->allocator, message);
  }
};

}  // namespace

namespace {

// A body ends with a piece of any size. Nagle's algorithm would keep it back until the other side
// has acknowledged what came before, which it may put off for 40 ms.
void send_without_delay(aws_channel_slot* first) {
  const aws_socket* socket = aws_socket_handler_get_socket(first->handler);
  const int on = 1;
  (void)setsockopt(socket->io_handle.data.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

struct LaneHandler {
  static Lane& lane(aws_channel_handler* handler) { return *static_cast<Lane*>(handler->impl); }

  static int read(aws_channel_handler* handler, aws_channel_slot*, aws_io_message* message) {
    return lane(handler).pass(message, AWS_CHANNEL_DIR_READ);
  }
  static int write(aws_channel_handler* handler, aws_channel_slot*, aws_io_message* message) {
    return lane(handler).write(message);
  }
  static int increment_window(aws_channel_handler*, aws_channel_slot* slot, std::size_t size) {
    return aws_channel_slot_increment_read_window(slot, size);
  }
  static int shutdown(aws_channel_handler*, aws_channel_slot* slot, aws_channel_direction direction,
                      int error_code, bool immediately) {
    return aws_channel_slot_on_handler_shutdown_complete(slot, direction, error_code, immediately);
  }
  static std::size_t window(aws_channel_handler*) { return SIZE_MAX; }
  static std::size_t overhead(aws_channel_handler*) { return 0; }
  static void destroy(aws_channel_handler* handler) { delete &lane(handler); }

  static aws_channel_handler_vtable vtable;
};

aws_channel_handler_vtable LaneHandler::vtable = {
    .process_read_message = read,
    .process_write_message = write,
    .increment_read_window = increment_window,
    .shutdown = shutdown,
    .initial_window_size = window,
    .message_overhead = overhead,
    .destroy = destroy,
    .reset_statistics = nullptr,
    .gather_statistics = nullptr,
    .trigger_read = nullptr,
};

Lane* Lane::of(aws_http_connection* connection) noexcept {
  aws_channel_slot* first = aws_channel_get_first_slot(aws_http_connection_get_channel(connection));
  aws_channel_slot* last = first;
  while (last != nullptr && last->adj_right != nullptr) last = last->adj_right;
  if (last == first) return nullptr;
  aws_channel_slot* before = last->adj_left;
  if (before->handler->vtable == &LaneHandler::vtable) return &LaneHandler::lane(before->handler);
  send_without_delay(first);
  Lane* made = insert_left(last);
  // Another one for what TLS sends and receives.
  if (made != nullptr && before != first) (void)insert_left(before);
  return made;
}

Lane* Lane::insert_left(aws_channel_slot* of) noexcept {
  aws_channel_slot* slot = aws_channel_slot_new(of->channel);
  if (slot == nullptr) return nullptr;
  auto* made = new (std::nothrow) Lane(slot);
  if (made == nullptr) {
    aws_channel_slot_remove(slot);
    return nullptr;
  }
  made->handler_.vtable = &LaneHandler::vtable;
  made->handler_.alloc = aws_default_allocator();
  made->handler_.impl = made;
  aws_channel_slot_insert_left(of, slot);
  if (aws_channel_slot_set_handler(slot, &made->handler_) != AWS_OP_SUCCESS) {
    aws_channel_slot_remove(slot);  // destroys the handler
    return nullptr;
  }
  return made;
}

void Lane::lend(const std::uint8_t* place, const std::uint8_t* data, std::size_t size,
                std::shared_ptr<Lender> lender) {
  next_ = {place, data, size, std::move(lender)};
}

int Lane::write(aws_io_message* message) {
  if (next_.lender == nullptr) return pass(message, AWS_CHANNEL_DIR_WRITE);
  const Piece piece = std::exchange(next_, Piece());
  aws_byte_buf& buffer = message->message_data;
  const auto before = static_cast<std::size_t>(piece.place - buffer.buffer);
  if (piece.place < buffer.buffer || before + piece.size != buffer.len) {
    // Not the message that the piece was lent to: what it holds must not be sent.
    return aws_raise_error(AWS_ERROR_INVALID_STATE);
  }
  auto body = std::unique_ptr<Borrowed>(new (std::nothrow) Borrowed());
  if (body == nullptr) return aws_raise_error(AWS_ERROR_OOM);
  piece.lender->lent();
  body->lender = piece.lender;
  aws_io_message& lent = body->message;
  // Never written through: a channel reads what it is to send.
  lent.message_data = aws_byte_buf_from_array(piece.data, piece.size);
  lent.owning_channel = message->owning_channel;
  lent.on_completion = message->on_completion;
  lent.user_data = message->user_data;

  // From here on the channel may free a message before `send` returns.
  Borrowed* sent = body.release();
  if (before == 0) {
    if (send(&sent->message, AWS_CHANNEL_DIR_WRITE) != AWS_OP_SUCCESS) {
      delete sent;
      return AWS_OP_ERR;
    }
    Borrowed::release_uncleared(message);
    return AWS_OP_SUCCESS;
  }
  buffer.len = before;
  message->on_completion = nullptr;
  if (send(message, AWS_CHANNEL_DIR_WRITE) != AWS_OP_SUCCESS) {
    delete sent;
    return AWS_OP_ERR;
  }
  if (send(&sent->message, AWS_CHANNEL_DIR_WRITE) != AWS_OP_SUCCESS) {
    // The first half is gone, so that this is no failure of the caller's message.
    delete sent;
    aws_channel_shutdown(slot_->channel, aws_last_error());
  }
  return AWS_OP_SUCCESS;
}

int Lane::pass(aws_io_message* message, aws_channel_direction direction) {
  Borrowed* passed = nullptr;
  if (message->message_data.len >= kClearBelow) passed = new (std::nothrow) Borrowed();
  if (passed == nullptr) return send(message, direction);
  passed->original = message;
  passed->message.message_data = message->message_data;
  passed->message.owning_channel = message->owning_channel;
  passed->message.on_completion = message->on_completion;
  passed->message.user_data = message->user_data;
  if (send(&passed->message, direction) != AWS_OP_SUCCESS) {
    passed->original = nullptr;  // the message stays the caller's
    delete passed;
    return AWS_OP_ERR;
  }
  return AWS_OP_SUCCESS;
}

int Lane::send(aws_io_message* message, aws_channel_direction direction) {
  return aws_channel_slot_send_message(slot_, message, direction);
}

}  // namespace kumo::http
