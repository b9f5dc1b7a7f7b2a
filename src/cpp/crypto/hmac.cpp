#include "crypto/hmac.hpp"

#include "crt/error.hpp"

namespace kumo::crypto {

Hmac::Hmac(const Secret& key) {
  const aws_byte_cursor secret = aws_byte_cursor_from_array(key.data(), Secret::kSize);
  hmac_.reset(
      crt::check_ptr(aws_sha256_hmac_new(aws_default_allocator(), &secret), "beginning an HMAC"));
}

void Hmac::update(const void* data, std::size_t size) {
  if (size == 0) return;
  const aws_byte_cursor part = aws_byte_cursor_from_array(data, size);
  crt::check(aws_hmac_update(hmac_.get(), &part), "taking an HMAC");
}

void Hmac::finish(std::uint8_t* into) {
  aws_byte_buf out = aws_byte_buf_from_empty_array(into, AWS_SHA256_HMAC_LEN);
  crt::check(aws_hmac_finalize(hmac_.get(), &out, 0), "finishing an HMAC");
}

void derive(const Secret& from, std::string_view purpose, std::string_view context, Secret& into) {
  static_assert(Secret::kSize == AWS_SHA256_HMAC_LEN);
  constexpr std::uint8_t kFirstBlock = 1;
  Hmac hmac(from);
  hmac.update(purpose.data(), purpose.size());
  hmac.update(context.data(), context.size());
  hmac.update(&kFirstBlock, sizeof(kFirstBlock));
  hmac.finish(into.data());
}

}  // namespace kumo::crypto
