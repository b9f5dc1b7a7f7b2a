#include "crypto/seal.hpp"

#include <aws/cal/symmetric_cipher.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "async/buffer.hpp"
#include "checksum/crc.hpp"
#include "checksum/crc32c.hpp"
#include "crt/error.hpp"
#include "crt/handle.hpp"
#include "crt/runtime.hpp"

namespace kumo::crypto {
namespace {

using Cipher = crt::Handle<aws_symmetric_cipher, aws_symmetric_cipher_destroy>;

constexpr std::string_view kMagic{"KUMOSEA\x01", 8};
constexpr std::size_t kNonce = 12;
constexpr std::size_t kSealedChunk = kChunk + kTag;

std::string_view text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

std::uint64_t chunks_of(std::uint64_t size) { return size == 0 ? 1 : (size + kChunk - 1) / kChunk; }

// One use of a key and nonce; what the library needs besides the data.
Cipher begin(const Secret& key, const Header& header, std::uint64_t index, bool last) {
  // 88 bits of counter, big-endian, then the flag that keeps an object from being cut or extended.
  std::array<std::uint8_t, kNonce> nonce{};
  for (std::size_t i = 0; i < 8; ++i) {
    nonce[3 + i] = static_cast<std::uint8_t>(index >> (56 - 8 * i));
  }
  nonce[11] = last ? 1 : 0;
  const aws_byte_cursor key_bytes = aws_byte_cursor_from_array(key.data(), Secret::kSize);
  const aws_byte_cursor nonce_bytes = aws_byte_cursor_from_array(nonce.data(), nonce.size());
  const aws_byte_cursor bound = aws_byte_cursor_from_array(header.data(), header.size());
  return Cipher(
      crt::check_ptr(aws_aes_gcm_256_new(aws_default_allocator(), &key_bytes, &nonce_bytes, &bound),
                     "preparing AES-256-GCM"));
}

// `into` has room for the tag, too.
void seal_chunk(Cipher cipher, const std::uint8_t* plain, std::size_t size, std::uint8_t* into) {
  aws_byte_buf out = aws_byte_buf_from_empty_array(into, size + kTag);
  crt::check(
      aws_symmetric_cipher_encrypt(cipher.get(), aws_byte_cursor_from_array(plain, size), &out),
      "encrypting");
  crt::check(aws_symmetric_cipher_finalize_encryption(cipher.get(), &out), "encrypting");
  const aws_byte_cursor tag = aws_symmetric_cipher_get_tag(cipher.get());
  if (out.len != size || tag.len != kTag) throw std::logic_error("AES-256-GCM: not its lengths");
  std::memcpy(into + size, tag.ptr, kTag);
}

// `size` without the tag, which follows. `scratch` has room for a block more.
bool open_chunk(Cipher cipher, const std::uint8_t* sealed, std::size_t size,
                std::uint8_t* scratch) {
  aws_symmetric_cipher_set_tag(cipher.get(), aws_byte_cursor_from_array(sealed + size, kTag));
  aws_byte_buf out = aws_byte_buf_from_empty_array(scratch, kSealedChunk);
  crt::check(
      aws_symmetric_cipher_decrypt(cipher.get(), aws_byte_cursor_from_array(sealed, size), &out),
      "decrypting");
  return aws_symmetric_cipher_finalize_decryption(cipher.get(), &out) == AWS_OP_SUCCESS &&
         out.len == size;
}

void object_key(const Secret& material, const Salt& salt, Secret& into) {
  derive(material, "kumo-crt 1 object", text(salt.data(), salt.size()), into);
}

}  // namespace

std::uint64_t sealed_size(std::uint64_t size) {
  if (size > kMaxSize) throw std::length_error("more than an object can have");
  return kHeader + size + chunks_of(size) * kTag;
}

void Examination::read(const Plaintext& content, std::uint64_t stop) {
  if (finished_) throw std::logic_error("the examination is over");
  if (stop < position_ || stop > content.size()) throw std::length_error("beyond the content");
  thread_local const async::AlignedBuffer scratch(kChunk);
  while (position_ < stop) {
    const std::uint64_t place = position_ % kChunk;
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(kChunk - place, stop - position_));
    const std::uint8_t* part = content.at(position_, count, scratch.data());
    if (place == 0) chunks_.push_back(0);
    chunks_.back() = checksum::crc32c(part, count, chunks_.back());
    hmac_.update(part, count);
    position_ += count;
  }
}

void Examination::finish() {
  if (finished_) throw std::logic_error("the examination is over");
  if (chunks_.empty()) chunks_.push_back(0);
  Mac whole;
  hmac_.finish(whole.data());
  std::copy_n(whole.begin(), kSalt, salt_.begin());
  finished_ = true;
}

std::uint32_t Examination::crc32c() const noexcept {
  std::uint32_t whole = 0;
  std::uint64_t left = position_;
  for (const std::uint32_t chunk : chunks_) {
    const std::uint64_t size = std::min<std::uint64_t>(kChunk, left);
    whole = checksum::crc32c_combine(whole, chunk, size);
    left -= size;
  }
  return whole;
}

SealingKey::SealingKey(const std::uint8_t* material) {
  crt::init_libraries();
  std::copy_n(material, Secret::kSize, material_.data());
  derive(material_, "kumo-crt 1 salt", {}, salts_);
  Secret id;  // not secret, but of the same size
  derive(material_, "kumo-crt 1 id", {}, id);
  std::copy_n(id.data(), id_.size(), id_.begin());
}

Mac SealingKey::mac(std::string_view purpose, std::string_view data) const {
  Secret key;
  derive(material_, purpose, {}, key);
  Hmac hmac(key);
  hmac.update(data.data(), data.size());
  Mac result;
  hmac.finish(result.data());
  return result;
}

Header SealingKey::header(const Salt& salt) const {
  Header header;
  auto next = std::copy(kMagic.begin(), kMagic.end(), header.begin());
  next = std::copy(id_.begin(), id_.end(), next);
  std::copy(salt.begin(), salt.end(), next);
  return header;
}

void SealingKey::seal(const Plaintext& content, const Examination& examined, std::uint64_t start,
                      std::uint64_t stop, std::uint8_t* into) const {
  const std::uint64_t size = content.size();
  if (!examined.finished()) throw std::logic_error("the examination is not over");
  if (examined.size() != size) throw SealError("it has not the size that was examined");
  if (start > stop || stop > sealed_size(size)) throw std::length_error("beyond the sealed form");
  const Header bound = header(examined.salt());
  if (start < kHeader) {
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(stop, kHeader) - start);
    std::memcpy(into, bound.data() + start, count);
    into += count;
    start += count;
  }
  if (start == stop) return;
  Secret key;
  object_key(material_, examined.salt(), key);
  const std::uint64_t last = chunks_of(size) - 1;
  thread_local const async::AlignedBuffer plain(kChunk);
  thread_local const async::AlignedBuffer whole(kSealedChunk);
  while (start < stop) {
    const std::uint64_t index = (start - kHeader) / kSealedChunk;
    const std::uint64_t begins = kHeader + index * kSealedChunk;
    const auto length =
        static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, size - index * kChunk));
    const auto skipped = static_cast<std::size_t>(start - begins);
    const auto wanted =
        static_cast<std::size_t>(std::min<std::uint64_t>(stop - start, length + kTag - skipped));
    const std::uint8_t* from = content.at(index * kChunk, length, plain.data());
    if (checksum::crc32c(from, length, 0) != examined.crc32c(index)) {
      throw SealError("chunk " + std::to_string(index) +
                      " is not what it was when it was examined");
    }
    // A chunk of which only a part is wanted is sealed all the same.
    const bool is_whole = wanted == length + kTag;
    seal_chunk(begin(key, bound, index, index == last), from, length,
               is_whole ? into : whole.data());
    if (!is_whole) std::memcpy(into, whole.data() + skipped, wanted);
    into += wanted;
    start += wanted;
  }
}

std::size_t SealingKey::open(std::uint8_t* data, std::size_t size, const Salt& salt,
                             std::uint64_t first, bool final) const {
  if (first > kMaxSize / kChunk) throw SealError("it has more chunks than there can be");
  // Every chunk but the last of a content is full, and none but an only one is empty.
  const std::size_t rest = size % kSealedChunk;
  const bool fits =
      final ? size > 0 && (rest == 0 || rest > kTag || (rest == kTag && size == kTag && first == 0))
            : rest == 0;
  if (!fits) throw SealError("it does not end where a chunk does");
  const Header bound = header(salt);
  Secret key;
  object_key(material_, salt, key);
  thread_local const async::AlignedBuffer plain(kSealedChunk);
  std::size_t done = 0;
  for (std::size_t at = 0; at < size; ++first) {
    const std::size_t whole = std::min(kSealedChunk, size - at);
    const std::size_t length = whole - kTag;
    const bool last = final && at + whole == size;
    // Not where it is: what is not authentic must not be seen by anybody.
    if (!open_chunk(begin(key, bound, first, last), data + at, length, plain.data())) {
      throw SealError("chunk " + std::to_string(first) +
                      " is not authentic: damaged, or of another object or key");
    }
    std::memcpy(data + done, plain.data(), length);
    done += length;
    at += whole;
  }
  // What is behind was ciphertext, and is of no use.
  return done;
}

}  // namespace kumo::crypto
