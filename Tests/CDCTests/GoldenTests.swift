import Foundation
import PostgresClient
import Testing

@testable import CDC

/// What Postgres 15 sent for one session of every kind of change, protocol 2 with streaming (captured with
/// pg_logical_slot_get_binary_changes; of long runs of inserts only the first two are kept), and what it means.
@Suite struct GoldenTests {
    private static let directory = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Golden")

    @Test func `what the server sent is understood as it was meant`() throws {
        let captured = try String(contentsOf: Self.directory.appending(path: "pgoutput-15-v2.txt"), encoding: .utf8)
        var decoder = PgOutputDecoder()
        var lines: [String] = []
        for hex in captured.split(separator: "\n") {
            let bytes = Self.bytes(hex)
            for count in 0..<min(bytes.count, 200) {
                var copy = decoder
                #expect(throws: PgOutputError.self) { _ = try copy.decode(bytes.span.extracting(0..<count)) }
            }
            let (message, xid) = try decoder.decode(bytes.span)
            lines.append((xid.map { "[\($0)] " } ?? "") + Self.shown(message, bytes))
        }
        #expect(!decoder.isInStream)
        let wanted = try String(
            contentsOf: Self.directory.appending(path: "pgoutput-15-v2.decoded.txt"), encoding: .utf8)
        #expect(lines.joined(separator: "\n") + "\n" == wanted)
    }

    @Test func `one session captured in text and in binary makes the same records`() throws {
        let fromText = try records("kinds-15-text.txt")
        let fromBinary = try records("kinds-15-binary.txt", binary: true)
        #expect(fromText.count == 15 && fromBinary.count == fromText.count)
        for (text, binary) in zip(fromText, fromBinary) {
            #expect(text.key == binary.key && text.partition == binary.partition)
            // As readers compare: 100000 and 100000.0 are one number.
            #expect(try Self.json(text.value) == Self.json(binary.value), "\(text) \(binary)")
        }
    }

    private static func json(_ text: String?) throws -> NSDictionary? {
        try text.map { try JSONSerialization.jsonObject(with: Data($0.utf8)) as? NSDictionary } ?? nil
    }

    /// What the session of every kind of value becomes.
    private func records(_ file: String, binary: Bool = false) throws -> [Records.Record] {
        let captured = try String(contentsOf: Self.directory.appending(path: file), encoding: .utf8)
        let context = ChangeContext(id: 1, lsn: LSN(7), xid: 5, commitMs: 1, snapshot: .none, nowMs: 2)
        let route = TableRoute(table: "kinds", topic: "topic", key: ["id"])
        let records = Records()
        var decoder = PgOutputDecoder()
        var writer = RowWriter()
        var encoder: TableEncoder?
        for hex in captured.split(separator: "\n") {
            let bytes = Self.bytes(hex)
            switch try decoder.decode(bytes.span).message {
            case .relation(let relation):
                encoder = try TableEncoder(
                    relation, route: route, topic: 0, partitions: 16, database: "d", binary: binary)
            case .insert(_, let new):
                try writer.insert(#require(encoder), new, in: bytes.span, context, to: records)
            case .update(_, let old, let new):
                try writer.update(#require(encoder), old, new, in: bytes.span, context, to: records)
            case .delete(_, let old):
                try writer.delete(#require(encoder), old, in: bytes.span, context, to: records)
            default: break
            }
        }
        return records.all
    }

    private static func bytes(_ hex: Substring) -> [UInt8] {
        stride(from: 0, to: hex.count, by: 2).map { offset in
            let start = hex.index(hex.startIndex, offsetBy: offset)
            return UInt8(hex[start..<hex.index(start, offsetBy: 2)], radix: 16) ?? 0
        }
    }

    private static func shown(_ message: PgOutputMessage, _ bytes: [UInt8]) -> String {
        switch message {
        case .begin(let lsn, _, let xid): "begin \(xid) at \(lsn)"
        case .commit(let lsn, let end, _): "commit at \(lsn), next \(end)"
        case .origin(let lsn, let name): "origin \(name) \(lsn)"
        case .relation(let relation):
            "relation \(relation.id) \(relation.schema).\(relation.name) \(relation.identity): "
                + relation.columns.map { "\($0.name)\($0.isKey ? "*" : "") \($0.type)" }.joined(separator: ", ")
        case .type(let oid, let schema, let name): "type \(oid) \(schema).\(name)"
        case .insert(let relation, let new): "insert \(relation) \(shown(new, bytes))"
        case .update(let relation, let old, let new):
            "update \(relation) \(old.map { ($0.isKeyOnly ? "key " : "old ") + shown($0.tuple, bytes) + " → " } ?? "")"
                + shown(new, bytes)
        case .delete(let relation, let old):
            "delete \(relation) \(old.isKeyOnly ? "key" : "old") \(shown(old.tuple, bytes))"
        case .truncate(let relations, let cascade, let restart):
            "truncate \(relations)\(cascade ? " cascade" : "")\(restart ? " restart identity" : "")"
        case .message(let transactional, _, let prefix, let content):
            "message \(transactional) \(prefix) \(Array(bytes[content]))"
        case .streamStart(let xid, let isFirst): "stream start \(xid) \(isFirst)"
        case .streamStop: "stream stop"
        case .streamCommit(let xid, let lsn, let end, _): "stream commit \(xid) at \(lsn), next \(end)"
        case .streamAbort(let xid, let subXID): "stream abort \(xid) \(subXID)"
        }
    }

    private static func shown(_ tuple: Tuple, _ bytes: [UInt8]) -> String {
        var values: [String] = []
        var offset = tuple.bytes.lowerBound
        for _ in 0..<tuple.columns {
            let kind = bytes[offset]
            offset += 1
            if kind == UInt8(ascii: "n") || kind == UInt8(ascii: "u") {
                values.append(kind == UInt8(ascii: "n") ? "null" : "unchanged")
                continue
            }
            let count = bytes[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) }
            offset += 4
            let text = String(decoding: bytes[offset..<offset + count], as: UTF8.self)
            values.append(text.count > 20 ? "\(text.prefix(5))…(\(text.count))" : "'\(text)'")
            offset += count
        }
        return "(" + values.joined(separator: ", ") + ")"
    }
}
