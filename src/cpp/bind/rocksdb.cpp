// Read-only views of RocksDB's files. Files are read without the GIL.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "bind/bind.hpp"
#include "bind/gil.hpp"
#include "rocksdb/blob_file.hpp"
#include "rocksdb/compression.hpp"
#include "rocksdb/error.hpp"
#include "rocksdb/filename.hpp"
#include "rocksdb/manifest.hpp"
#include "rocksdb/manifest_writer.hpp"
#include "rocksdb/path_ids.hpp"
#include "rocksdb/sst.hpp"
#include "rocksdb/wal.hpp"

namespace kumo::bind {
namespace {

namespace py = pybind11;
namespace db = kumo::rocksdb;
using Path = std::filesystem::path;

// Names in RocksDB files are bytes by right and UTF-8 by habit: nothing may be lost.
py::str to_str(std::string_view text) {
  PyObject* decoded =
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape");
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

template <typename Owner>
auto as_str(std::string Owner::* member) {
  return [member](const Owner& owner) { return to_str(owner.*member); };
}

template <typename Owner>
auto as_bytes(std::string Owner::* member) {
  return [member](const Owner& owner) { return py::bytes(owner.*member); };
}

template <typename Result, typename Read, typename... Args>
Result without_gil(Read read, const Args&... args) {
  const GilReleased released;
  return read(args...);
}

// The Python side of ManifestState: its lists are converted once, not at each access.
struct Manifest {
  db::ManifestState state;
  py::tuple column_families;
  py::tuple sst_files;
  py::tuple blob_files;
};

template <typename Item>
py::tuple to_tuple(std::vector<Item> items) {
  py::tuple result(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    result[i] = py::cast(std::move(items[i]), py::return_value_policy::move);
  }
  return result;
}

Manifest to_python(db::ManifestState state) {
  Manifest manifest;
  manifest.column_families = to_tuple(std::exchange(state.column_families, {}));
  manifest.sst_files = to_tuple(std::exchange(state.sst_files, {}));
  manifest.blob_files = to_tuple(std::exchange(state.blob_files, {}));
  manifest.state = std::move(state);
  return manifest;
}

Manifest read_manifest(const Path& path, bool allow_partial) {
  return to_python(without_gil<db::ManifestState>(db::read_manifest, path, allow_partial));
}

Manifest keep_column_families(const Path& source, const Path& target,
                              const std::set<std::uint32_t>& keep, std::uint64_t newest_wal) {
  return to_python(
      without_gil<db::ManifestState>(db::keep_column_families, source, target, keep, newest_wal));
}

const char* table_kind_name(db::TableKind kind) {
  switch (kind) {
    case db::TableKind::kBlockBased:
      return "block_based";
    case db::TableKind::kPlain:
      return "plain";
    case db::TableKind::kCuckoo:
      return "cuckoo";
  }
  return "unknown";
}

void register_errors(py::module_& m) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> format_error;
  format_error.call_once_and_store_result([&m] {
    return py::object(py::exception<db::FormatError>(m, "RocksDBFormatError", PyExc_ValueError));
  });
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(std::move(pointer));
    } catch (const db::FormatError& error) {
      const py::object& type = format_error.get_stored();
      py::object instance = type(to_str(error.what()));
      instance.attr("path") = to_str(error.path());
      instance.attr("offset") = error.offset();
      PyErr_SetObject(type.ptr(), instance.ptr());
    } catch (const db::FileError& error) {
      // With three arguments OSError picks the subclass, such as FileNotFoundError.
      errno = error.code().value();
      PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, to_str(error.path()).ptr());
    }
  });
}

void register_sst(py::module_& m) {
  using P = db::SstProperties;
  py::class_<P>(m, "SstProperties")
      .def_readonly("file_size", &P::file_size)
      .def_property_readonly("table_kind", [](const P& p) { return table_kind_name(p.kind); })
      .def_readonly("format_version", &P::format_version)
      .def_property_readonly("checksum_type",
                             [](const P& p) { return db::checksum_name(p.checksum); })
      .def_property_readonly("db_id", as_str(&P::db_id))
      .def_property_readonly("db_session_id", as_str(&P::db_session_id))
      .def_property_readonly("db_host_id", as_str(&P::db_host_id))
      .def_readonly("original_file_number", &P::original_file_number)
      .def_readonly("creation_time", &P::creation_time)
      .def_readonly("file_creation_time", &P::file_creation_time)
      .def_readonly("oldest_key_time", &P::oldest_key_time)
      .def_readonly("num_entries", &P::num_entries)
      .def_readonly("num_deletions", &P::num_deletions)
      .def_readonly("num_merge_operands", &P::num_merge_operands)
      .def_readonly("num_range_deletions", &P::num_range_deletions)
      .def_readonly("raw_key_size", &P::raw_key_size)
      .def_readonly("raw_value_size", &P::raw_value_size)
      .def_readonly("data_size", &P::data_size)
      .def_readonly("index_size", &P::index_size)
      .def_readonly("filter_size", &P::filter_size)
      .def_readonly("column_family_id", &P::column_family_id)
      .def_property_readonly("column_family_name", as_str(&P::column_family_name))
      .def_property_readonly("comparator", as_str(&P::comparator))
      .def_property_readonly("compression", as_str(&P::compression))
      .def_readonly("global_seqno", &P::global_seqno)
      .def_property_readonly("identity_complete", &P::identity_complete);
  m.def(
      "sst_properties",
      [](const Path& path) { return without_gil<P>(db::read_sst_properties, path); },
      py::arg("path"));
}

void register_manifest(py::module_& m) {
  using C = db::ColumnFamily;
  py::class_<C>(m, "ColumnFamily")
      .def_readonly("id", &C::id)
      .def_property_readonly("name", as_str(&C::name))
      .def_property_readonly("comparator", as_str(&C::comparator))
      .def_readonly("log_number", &C::log_number)
      .def_property_readonly("full_history_ts_low", as_bytes(&C::full_history_ts_low))
      .def_readonly("persist_user_defined_timestamps", &C::persist_user_defined_timestamps);

  using S = db::SstFile;
  py::class_<S>(m, "SstFile")
      .def_readonly("column_family_id", &S::column_family_id)
      .def_readonly("level", &S::level)
      .def_readonly("number", &S::number)
      .def_readonly("size", &S::size)
      .def_readonly("path_id", &S::path_id)
      .def_property_readonly("smallest_key", as_bytes(&S::smallest_key))
      .def_property_readonly("largest_key", as_bytes(&S::largest_key))
      .def_readonly("smallest_seqno", &S::smallest_seqno)
      .def_readonly("largest_seqno", &S::largest_seqno)
      .def_property_readonly("file_checksum", as_bytes(&S::file_checksum))
      .def_property_readonly("file_checksum_func_name", as_str(&S::file_checksum_func_name))
      .def_property_readonly("unique_id", as_bytes(&S::unique_id))
      .def_readonly("oldest_ancester_time", &S::oldest_ancester_time)
      .def_readonly("file_creation_time", &S::file_creation_time)
      .def_readonly("epoch_number", &S::epoch_number)
      .def_readonly("oldest_blob_file_number", &S::oldest_blob_file_number)
      .def_readonly("temperature", &S::temperature);

  using B = db::BlobFile;
  py::class_<B>(m, "BlobFile")
      .def_readonly("column_family_id", &B::column_family_id)
      .def_readonly("number", &B::number)
      .def_readonly("total_count", &B::total_count)
      .def_readonly("total_bytes", &B::total_bytes)
      .def_readonly("garbage_count", &B::garbage_count)
      .def_readonly("garbage_bytes", &B::garbage_bytes)
      .def_property_readonly("checksum_method", as_str(&B::checksum_method))
      .def_property_readonly("checksum_value", as_bytes(&B::checksum_value));

  using M = Manifest;
  using State = db::ManifestState;
  const auto number = [](auto State::* member) {
    return [member](const M& manifest) { return manifest.state.*member; };
  };
  py::class_<M>(m, "ManifestState")
      .def_property_readonly("file_size", number(&State::file_size))
      .def_property_readonly("valid_bytes", number(&State::valid_bytes))
      .def_property_readonly("edits", number(&State::edits))
      .def_property_readonly("db_id", [](const M& self) { return to_str(self.state.db_id); })
      .def_property_readonly("log_number", number(&State::log_number))
      .def_property_readonly("prev_log_number", number(&State::prev_log_number))
      .def_property_readonly("next_file_number", number(&State::next_file_number))
      .def_property_readonly("last_sequence", number(&State::last_sequence))
      .def_property_readonly("min_log_number_to_keep", number(&State::min_log_number_to_keep))
      .def_property_readonly("max_column_family", number(&State::max_column_family))
      .def_property_readonly("min_wal_number", number(&State::min_wal_number))
      .def_property_readonly("needed_wal_number", number(&State::needed_wal_number))
      .def_property_readonly("wals", number(&State::wals))
      .def_readonly("column_families", &M::column_families)
      .def_readonly("sst_files", &M::sst_files)
      .def_readonly("blob_files", &M::blob_files);
  using Changes = db::ManifestChanges;
  const auto names = [](std::vector<std::string> Changes::* member) {
    return [member](const Changes& changes) {
      py::tuple result((changes.*member).size());
      for (std::size_t i = 0; i < result.size(); ++i) result[i] = to_str((changes.*member)[i]);
      return result;
    };
  };
  py::class_<Changes>(m, "ManifestChanges")
      .def_readonly("edits", &Changes::edits)
      .def_property_readonly("families_added", names(&Changes::families_added))
      .def_property_readonly("families_dropped", names(&Changes::families_dropped))
      .def_readonly("flushes", &Changes::flushes)
      .def_readonly("ingestions", &Changes::ingestions)
      .def_readonly("removals", &Changes::removals)
      .def_readonly("added_tables", &Changes::added_tables)
      .def_readonly("removed_tables", &Changes::removed_tables)
      .def_readonly("valid_bytes", &Changes::valid_bytes)
      .def_readonly("blob_files", &Changes::blob_files)
      .def_readonly("needed_wal_number", &Changes::needed_wal_number);

  using Follower = db::ManifestFollower;
  py::class_<Follower>(m, "ManifestFollower")
      .def(py::init<Path>(), py::arg("path"))
      .def("advance", [](Follower& follower) {
        const GilReleased released;
        return follower.advance();
      });
  m.def("read_manifest", &read_manifest, py::arg("path"), py::kw_only(),
        py::arg("allow_partial") = true);
  m.def(
      "clear_path_ids",
      [](const Path& path) { return without_gil<std::uint64_t>(db::clear_path_ids, path); },
      py::arg("path"));
  m.def("keep_column_families", &keep_column_families, py::arg("source"), py::arg("target"),
        py::kw_only(), py::arg("keep"), py::arg("newest_wal"));
}

void register_wal(py::module_& m) {
  using W = db::WalInfo;
  py::class_<W>(m, "WalInfo")
      .def_readonly("file_size", &W::file_size)
      .def_readonly("valid_bytes", &W::valid_bytes)
      .def_readonly("records", &W::records)
      .def_readonly("entries", &W::entries)
      .def_readonly("holes", &W::holes)
      .def_readonly("first_sequence", &W::first_sequence)
      .def_readonly("last_sequence", &W::last_sequence)
      .def_readonly("last_entries", &W::last_entries)
      .def_property_readonly("tail", [](const W& wal) { return db::log_tail_name(wal.tail); })
      .def_readonly("tail_offset", &W::tail_offset)
      .def_readonly("tail_problem", &W::tail_problem)
      .def_readonly("compressed", &W::compressed)
      .def_readonly("recycled", &W::recycled)
      .def_property_readonly("predecessor", [](const W& wal) -> py::object {
        if (!wal.predecessor) return py::none();
        return py::make_tuple(wal.predecessor->number, wal.predecessor->size,
                              wal.predecessor->last_sequence);
      });
  m.def(
      "scan_wal", [](const Path& path) { return without_gil<W>(db::scan_wal, path); },
      py::arg("path"));
}

void register_other_files(py::module_& m) {
  using B = db::BlobFileInfo;
  py::class_<B>(m, "BlobFileInfo")
      .def_readonly("file_size", &B::file_size)
      .def_readonly("version", &B::version)
      .def_readonly("column_family_id", &B::column_family_id)
      .def_property_readonly(
          "compression", [](const B& blob) { return db::compression_type_name(blob.compression); })
      .def_readonly("has_ttl", &B::has_ttl)
      .def_readonly("blob_count", &B::blob_count)
      .def_property_readonly("closed", &B::closed);
  m.def(
      "read_blob_file", [](const Path& path) { return without_gil<B>(db::read_blob_file, path); },
      py::arg("path"));

  m.def(
      "read_current",
      [](const Path& path) { return without_gil<std::string>(db::read_current, path); },
      py::arg("path"));
  m.def(
      "classify_file",
      [](const Path& name) {
        const db::FileName file = db::classify_file(name.string());
        return std::pair(db::file_kind_name(file.kind), file.number);
      },
      py::arg("name"));
}

}  // namespace

void register_rocksdb(py::module_& m) {
  register_errors(m);
  register_sst(m);
  register_manifest(m);
  register_wal(m);
  register_other_files(m);
}

}  // namespace kumo::bind
