#include "eventstream/decoder.hpp"

#include <aws/common/byte_buf.h>
#include <aws/common/common.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "crt/error.hpp"

namespace kumo::eventstream {
namespace {

// Reads one whole message, which `check_message` has passed, with aws-c-event-stream.
class LibraryDecoder {
 public:
  explicit LibraryDecoder(Message& message) : message_(message) {
    aws_event_stream_streaming_decoder_options options{};
    options.on_prelude = &on_prelude;
    options.on_header = &on_header;
    options.on_payload_segment = &on_payload;
    options.on_complete = &on_complete;
    options.on_error = &on_error;
    options.user_data = this;
    aws_event_stream_streaming_decoder_init_from_options(&decoder_, aws_default_allocator(),
                                                         &options);
  }
  ~LibraryDecoder() { aws_event_stream_streaming_decoder_clean_up(&decoder_); }
  LibraryDecoder(const LibraryDecoder&) = delete;
  LibraryDecoder& operator=(const LibraryDecoder&) = delete;

  void run() {
    const aws_byte_buf data = aws_byte_buf_from_array(message_.bytes.data(), message_.bytes.size());
    const int result = aws_event_stream_streaming_decoder_pump(&decoder_, &data);
    if (error_) std::rethrow_exception(error_);
    if (result != AWS_OP_SUCCESS) throw Damage(crt::error_text(aws_last_error()));
    if (!complete_) throw Damage("a message does not end where its length says");
  }

 private:
  static LibraryDecoder& self(void* user_data) { return *static_cast<LibraryDecoder*>(user_data); }

  // No exception may pass through C: it is kept, and thrown by `run`.
  static void on_header(aws_event_stream_streaming_decoder*, aws_event_stream_message_prelude*,
                        aws_event_stream_header_value_pair* header, void* user_data) {
    try {
      const auto type = static_cast<HeaderType>(header->header_value_type);
      const std::uint8_t* value = has_length(type) ? header->header_value.variable_len_val
                                                   : header->header_value.static_val;
      self(user_data).message_.headers.push_back(
          {std::string(header->header_name, header->header_name_len), type,
           std::string(reinterpret_cast<const char*>(value), header->header_value_len)});
    } catch (...) {
      self(user_data).error_ = std::current_exception();
    }
  }

  // The message came whole, so its payload does too.
  static void on_payload(aws_event_stream_streaming_decoder*, aws_byte_buf* payload, std::int8_t,
                         void* user_data) {
    self(user_data).message_.payload = {reinterpret_cast<const char*>(payload->buffer),
                                        payload->len};
  }

  static void on_complete(aws_event_stream_streaming_decoder*, std::uint32_t, void* user_data) {
    self(user_data).complete_ = true;
  }

  static void on_prelude(aws_event_stream_streaming_decoder*, aws_event_stream_message_prelude*,
                         void*) {}
  static void on_error(aws_event_stream_streaming_decoder*, aws_event_stream_message_prelude*, int,
                       const char*, void*) {}  // `pump` returns it

  aws_event_stream_streaming_decoder decoder_{};
  Message& message_;
  std::exception_ptr error_;
  bool complete_ = false;
};

}  // namespace

bool Decoder::fill(std::size_t size, std::string_view& piece) {
  const std::size_t count = std::min(size - buffer_.size(), piece.size());
  buffer_.insert(buffer_.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(count));
  piece.remove_prefix(count);
  return buffer_.size() == size;
}

Fed Decoder::feed(std::string_view piece) {
  Fed fed;
  try {
    for (;;) {
      if (!prelude_) {
        if (!fill(kPrelude, piece)) return fed;
        prelude_ = check_prelude({buffer_.data(), buffer_.size()});
      }
      const Prelude prelude = *prelude_;
      if (!fill(prelude.total, piece)) return fed;
      check_message(prelude, {buffer_.data(), buffer_.size()});
      Message message;
      message.offset = offset_;
      message.bytes = std::exchange(buffer_, {});
      LibraryDecoder(message).run();
      offset_ += prelude.total;
      prelude_.reset();
      fed.messages.push_back(std::move(message));
    }
  } catch (const Damage& damage) {
    fed.damage = damage.what();
    return fed;
  }
}

}  // namespace kumo::eventstream
