#include "rocksdb/manifest.hpp"

#include <utility>

#include "rocksdb/coding.hpp"
#include "rocksdb/error.hpp"
#include "rocksdb/file.hpp"
#include "rocksdb/log_reader.hpp"
#include "rocksdb/version_builder.hpp"

namespace kumo::rocksdb {
namespace {

void check_tail(const LogReader& reader, const VersionBuilder& builder, bool allow_partial,
                const std::string& path) {
  const LogTail tail = reader.tail();
  const bool unfinished = tail == LogTail::kPartial || tail == LogTail::kZeros;
  if (tail != LogTail::kClean && !(unfinished && allow_partial)) {
    throw FormatError(path, reader.tail_offset(), reader.tail_problem());
  }
  if (builder.inside_group() && !allow_partial) {
    throw FormatError(path, reader.valid_bytes(), "the file ends inside an atomic group of edits");
  }
}

void read_edits(const ReadOnlyFile& file, bool allow_partial, VersionBuilder& builder) {
  LogReader reader(file, {}, builder.valid_bytes());
  VersionEditDecoder decoder;
  LogFragment fragment;
  try {
    while (reader.next(fragment)) {
      if (fragment.first) decoder.begin();
      decoder.feed(fragment.data);
      if (fragment.last) builder.add(decoder.finish(), reader.valid_bytes());
    }
  } catch (const DecodeError& error) {
    throw FormatError(file.path(), fragment.record_offset, error.what());
  }
  check_tail(reader, builder, allow_partial, file.path());
  if (reader.compressed()) {
    throw FormatError(file.path(), 0, "a MANIFEST is never compressed: this is a WAL");
  }
}

ManifestState finish(VersionBuilder& builder, const std::string& path, std::uint64_t file_size) {
  const std::uint64_t end = builder.valid_bytes();
  try {
    ManifestState state = builder.finish();
    state.file_size = file_size;
    return state;
  } catch (const DecodeError& error) {
    throw FormatError(path, end, error.what());
  }
}

}  // namespace

ManifestState read_manifest(const std::filesystem::path& path, bool allow_partial) {
  const ReadOnlyFile file(path);
  VersionBuilder builder;
  read_edits(file, allow_partial, builder);
  return finish(builder, file.path(), file.size());
}

ManifestFollower::ManifestFollower(std::filesystem::path path)
    : path_(std::move(path)), builder_(std::make_unique<VersionBuilder>()) {}
ManifestFollower::ManifestFollower(ManifestFollower&&) noexcept = default;
ManifestFollower::~ManifestFollower() = default;

ManifestChanges ManifestFollower::advance() {
  const ReadOnlyFile file(path_);
  if (file.size() < builder_->valid_bytes()) {
    throw FormatError(file.path(), file.size(), "the file is shorter than it was");
  }
  read_edits(file, true, *builder_);
  builder_->leave_group();
  return builder_->take_changes();
}

}  // namespace kumo::rocksdb
