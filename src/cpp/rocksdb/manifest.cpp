#include "rocksdb/manifest.hpp"

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

}  // namespace

ManifestState read_manifest(const std::filesystem::path& path, bool allow_partial) {
  const ReadOnlyFile file(path);
  LogReader reader(file);
  VersionEditDecoder decoder;
  VersionBuilder builder;
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
  try {
    ManifestState state = builder.finish();
    state.file_size = file.size();
    return state;
  } catch (const DecodeError& error) {
    throw FormatError(file.path(), reader.valid_bytes(), error.what());
  }
}

}  // namespace kumo::rocksdb
