import PostgresClient
import TestSupport
import Testing
import Wire

@testable import CDC

/// Keeps what is written, as text.
final class Records: ChangeSink {
    struct Record: Equatable {
        var topic: Int
        var partition: Int32
        var key: String
        var value: String?
    }

    var all: [Record] = []

    func write(topic: Int, partition: Int32, key: Span<UInt8>, value: Span<UInt8>?) {
        var text: String?
        if let value { text = String(showing: value) }
        all.append(Record(topic: topic, partition: partition, key: String(showing: key), value: text))
    }
}

@Suite struct RowWriterTests {
    private let context = ChangeContext(
        id: 1, lsn: LSN(77), xid: 5, commitMs: 1000, snapshot: .none, nowMs: 2000)
    private let tail =
        #""source":{"db":"d","schema":"public","table":"t","lsn":77,"txId":5,"ts_ms":1000,"snapshot":false},"ts_ms":2000}"#

    private func table(_ columns: [Relation.Column], identity: Relation.Identity = .default, key: [String] = ["id"])
        throws -> TableEncoder
    {
        try TableEncoder(
            Relation(id: 7, schema: "public", name: "t", identity: identity, columns: columns),
            route: TableRoute(table: "t", topic: "topic", key: key), topic: 0, partitions: 16, database: "d")
    }

    private func decode(_ bytes: [UInt8]) throws -> PgOutputMessage {
        var decoder = PgOutputDecoder()
        return try decoder.decode(bytes.span).message
    }

    private func write(_ bytes: Bytes, to table: TableEncoder) throws -> [Records.Record] {
        let records = Records()
        var writer = RowWriter()
        switch try decode(bytes.bytes) {
        case .insert(_, let new): try writer.insert(table, new, in: bytes.bytes.span, context, to: records)
        case .update(_, let old, let new):
            try writer.update(table, old, new, in: bytes.bytes.span, context, to: records)
        case .delete(_, let old): try writer.delete(table, old, in: bytes.bytes.span, context, to: records)
        default: Issue.record("not a row")
        }
        return records.all
    }

    private let twoColumns = [
        Relation.Column(isKey: true, name: "id", type: 2950), Relation.Column(isKey: false, name: "note", type: 25),
    ]

    @Test func `an insert, an update and a delete make the envelopes that Debezium would`() throws {
        let table = try table(twoColumns)
        let insert = try write(
            Bytes.kind("I").int32(7).kind("N").int16(2).value("t", "k1").value("t", "a\"\n"), to: table)
        let partition = Wire.partition(forKey: Array("k1".utf8).span, count: 16)
        #expect(
            insert == [
                .init(
                    topic: 0, partition: partition, key: #"{"id":"k1"}"#,
                    value: #"{"op":"c","before":null,"after":{"id":"k1","note":"a\"\n"},"# + tail)
            ])
        let update = try write(Bytes.kind("U").int32(7).kind("N").int16(2).value("t", "k1").kind("n"), to: table)
        #expect(update.map(\.value) == [#"{"op":"u","before":null,"after":{"id":"k1","note":null},"# + tail])
        let delete = try write(Bytes.kind("D").int32(7).kind("K").int16(2).value("t", "k1").kind("n"), to: table)
        #expect(
            delete == [
                .init(
                    topic: 0, partition: partition, key: #"{"id":"k1"}"#,
                    value: #"{"op":"d","before":{"id":"k1"},"after":null,"# + tail),
                .init(topic: 0, partition: partition, key: #"{"id":"k1"}"#, value: nil),
            ])
    }

    @Test func `a changed key is the end of one row and the start of another`() throws {
        let bytes = Bytes.kind("U").int32(7).kind("K").int16(2).value("t", "k1").kind("n")
            .kind("N").int16(2).value("t", "k2").value("t", "x")
        let records = try write(bytes, to: table(twoColumns))
        #expect(records.map(\.key) == [#"{"id":"k1"}"#, #"{"id":"k1"}"#, #"{"id":"k2"}"#])
        #expect(records[0].value?.hasPrefix(#"{"op":"d","before":{"id":"k1"}"#) == true && records[1].value == nil)
        #expect(records[2].value?.hasPrefix(#"{"op":"c","before":null,"after":{"id":"k2","note":"x"}"#) == true)
    }

    @Test func `a large value that was not touched is taken from the old row, else named as unavailable`() throws {
        let full = Bytes.kind("U").int32(7).kind("O").int16(2).value("t", "k1").value("t", "big")
            .kind("N").int16(2).value("t", "k1").kind("u")
        let whole = try write(full, to: table(twoColumns, identity: .full))
        #expect(
            whole[0].value?.hasPrefix(#"{"op":"u","before":{"id":"k1","note":"big"},"after":{"id":"k1","note":"big"}"#)
                == true)
        let keyed = Bytes.kind("U").int32(7).kind("N").int16(2).value("t", "k1").kind("u")
        let unknown = try write(keyed, to: table(twoColumns))
        #expect(unknown[0].value?.contains(#""note":"__debezium_unavailable_value""#) == true)
    }

    @Test func `values are written as their types ask, from text and from binary alike`() throws {
        let cases: [(type: UInt32, text: String, binary: [UInt8]?, json: String)] = [
            (16, "t", [1], "true"), (16, "f", [0], "false"),
            (21, "-7", [0xff, 0xf9], "-7"), (23, "8", [0, 0, 0, 8], "8"), (20, "9", [0, 0, 0, 0, 0, 0, 0, 9], "9"),
            (26, "4000000000", [0xee, 0x6b, 0x28, 0], "4000000000"),
            (700, "1.5", [0x3f, 0xc0, 0, 0], "1.5"), (701, "NaN", [0x7f, 0xf8, 0, 0, 0, 0, 0, 0], #""NaN""#),
            (701, "-Infinity", [0xff, 0xf0, 0, 0, 0, 0, 0, 0], #""-Infinity""#), (701, "1e+20", nil, "1e+20"),
            (1700, "-0.05", [0, 1, 0xff, 0xff, 0x40, 0, 0, 2, 0x01, 0xf4], #""-0.05""#),
            (1700, "123456789012345678901.5", nil, #""123456789012345678901.5""#), (1700, "NaN", nil, #""NaN""#),
            (25, "a\\b\u{1}\u{e9}", Array("a\\b\u{1}\u{e9}".utf8), #""a\\b\u0001é""#),
            (
                2950, "0123abcd-89ab-4def-8123-456789abcdef",
                [0x01, 0x23, 0xab, 0xcd, 0x89, 0xab, 0x4d, 0xef, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef],
                #""0123abcd-89ab-4def-8123-456789abcdef""#
            ),
            (1184, "2023-11-14 22:13:20.123456+00", Bytes().int64(753_315_200_123_456).bytes, "1700000000123"),
            (1184, "2023-11-15 03:43:20+05:30", nil, "1700000000000"), (1114, "1969-12-31 23:59:59.9999", nil, "-1"),
            (1184, "0001-01-01 00:00:00+00 BC", nil, "-62167219200000"),
            (1184, "10000-01-01 00:00:00+00", nil, "253402300800000"),
            (1184, "infinity", Bytes().int64(UInt64(Int64.max)).bytes, "9007199254740991"),
            (1184, "-infinity", Bytes().int64(0x8000_0000_0000_0000).bytes, "-9007199254740991"),
            (1082, "0001-12-31 BC", Bytes().int32(UInt32(bitPattern: -730_120)).bytes, #""0001-12-31 BC""#),
            (1082, "2026-11-21", Bytes().int32(9821).bytes, #""2026-11-21""#),
            (17, "\\x0001ff", [0, 1, 0xff], #""AAH/""#),
            (17, "\\x", [], #""""#), (17, "\\x61", Array("a".utf8), #""YQ==""#),
            (3802, #"{"a": 1}"#, [1] + Array(#"{"a": 1}"#.utf8), #""{\"a\": 1}""#),
            (1009, "{a,b}", nil, #""{a,b}""#),
        ]
        for (type, text, binary, json) in cases {
            let table = try table([
                Relation.Column(isKey: true, name: "id", type: 25),
                Relation.Column(isKey: false, name: "v", type: type),
            ])
            let row = Bytes.kind("I").int32(7).kind("N").int16(2).value("t", "k")
            let wanted = #"{"op":"c","before":null,"after":{"id":"k","v":\#(json)},"#
            let fromText = try write(row.value("t", text), to: table)
            #expect(fromText[0].value?.hasPrefix(wanted) == true, "\(type) \(text): \(fromText[0].value ?? "")")
            guard let binary else { continue }
            let fromBinary = try write(row.kind("b").int32(UInt32(binary.count)).raw(binary), to: table)
            #expect(fromBinary[0].value?.hasPrefix(wanted) == true, "\(type) \(text): \(fromBinary[0].value ?? "")")
        }
    }

    @Test func `a binary value of an unknown type is refused, not guessed`() throws {
        let table = try table([
            Relation.Column(isKey: true, name: "id", type: 25), Relation.Column(isKey: false, name: "v", type: 1009),
        ])
        let row = Bytes.kind("I").int32(7).kind("N").int16(2).value("t", "k").kind("b").int32(2).raw([0, 1])
        #expect(throws: CDCError.self) { try write(row, to: table) }
    }

    @Test func `the partition is the same whether a value came in text or in binary`() throws {
        let cases: [(type: UInt32, text: String, binary: [UInt8])] = [
            (25, "a\"\\N\u{1}é", Array("a\"\\N\u{1}é".utf8)), (16, "t", [1]), (16, "f", [0]),
            (23, "-7", [0xff, 0xff, 0xff, 0xf9]),
            (1082, "2026-11-21", Bytes().int32(9821).bytes),
            (1700, "-0.05", [0, 1, 0xff, 0xff, 0x40, 0, 0, 2, 0x01, 0xf4]),
            (3802, #"{"a": 1}"#, [1] + Array(#"{"a": 1}"#.utf8)),
        ]
        for (type, text, binary) in cases {
            let table = try table([Relation.Column(isKey: true, name: "id", type: type)])
            let row = Bytes.kind("I").int32(7).kind("N").int16(1)
            let fromText = try write(row.value("t", text), to: table)
            let fromBinary = try write(row.kind("b").int32(UInt32(binary.count)).raw(binary), to: table)
            #expect(fromText == fromBinary, "\(type) \(text)")
        }
    }

    @Test func `a table that cannot be read in binary is refused before its first row`() throws {
        func check(_ columns: [(String, UInt32)], key: [String] = ["id"]) throws {
            let relation = Relation(
                id: 7, schema: "public", name: "t", identity: .full,
                columns: columns.map { Relation.Column(isKey: true, name: $0.0, type: $0.1) })
            let route = TableRoute(table: "t", topic: "topic", key: key)
            _ = try TableEncoder(relation, route: route, topic: 0, partitions: 1, database: "d", binary: true)
        }
        try check([("id", 2950), ("v", 1700), ("w", 1184), ("x", 701)])
        for columns: [(String, UInt32)] in [
            [("id", 2950), ("v", 1009)], [("id", 1184)], [("id", 701)], [("id", 17)], [("id", 99_999)],
        ] {
            let error = #expect(throws: CDCError.self) { try check(columns) }
            #expect(error?.hint == "fanout cdc without --binary")
        }
        try check([("id", 17), ("n", 23)], key: ["n", "id"])
    }

    @Test func `a number's binary form with any byte changed is a number or refused`() {
        var random = SeededGenerator.announced("binary numbers")
        // 12345678.9
        let good: [UInt8] = [0, 3, 0, 1, 0, 0, 0, 1, 0x04, 0xd2, 0x16, 0x2e, 0x23, 0x28]
        for _ in 0..<2000 {
            var bytes = good
            bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0...4, using: &random)) }
            var output: [UInt8] = []
            guard BinaryValue.append(bytes.span, type: 1700, to: &output) else { continue }
            #expect(output.count > 2 && output.count < 200_000)
        }
        var output: [UInt8] = []
        #expect(BinaryValue.append(good.span, type: 1700, to: &output))
        #expect(String(decoding: output, as: UTF8.self) == #""12345678.9""#)
    }

    @Test func `the partition is that of the partition column's text, whatever the key`() throws {
        let columns = [
            Relation.Column(isKey: true, name: "chat_id", type: 2950),
            Relation.Column(isKey: true, name: "user_id", type: 2950),
        ]
        let relation = Relation(id: 7, schema: "public", name: "members", identity: .default, columns: columns)
        let route = TableRoute.standard(members: "m", users: "u")[0]
        let encoder = try TableEncoder(relation, route: route, topic: 0, partitions: 16, database: "d")
        let (chat, user) = (UUID.random(), UUID.random())
        let records = try write(
            Bytes.kind("I").int32(7).kind("N").int16(2).value("t", "\(chat)").value("t", "\(user)"), to: encoder)
        #expect(records[0].key == #"{"chat_id":"\#(chat)","user_id":"\#(user)"}"#)
        #expect(records[0].partition == chat.partition(count: 16))
        var binary: [UInt8] = []
        chat.appendBinary(to: &binary)
        var other: [UInt8] = []
        user.appendBinary(to: &other)
        let again = try write(
            Bytes.kind("I").int32(7).kind("N").int16(2).kind("b").int32(16).raw(binary).kind("b").int32(16).raw(other),
            to: encoder)
        #expect(again == records)
    }

    @Test func `a row too large for a record keeps its key and says that it was cut`() throws {
        let table = try table(twoColumns)
        let records = Records()
        var writer = RowWriter()
        writer.valueBytesMax = 1000
        let bytes = Bytes.kind("I").int32(7).kind("N").int16(2).value("t", "k1")
            .value("t", String(repeating: "x", count: 2000)).bytes
        guard case .insert(_, let new) = try decode(bytes) else { return }
        try writer.insert(table, new, in: bytes.span, context, to: records)
        #expect(records.all[0].value == #"{"op":"c","before":null,"after":{"id":"k1"},"truncated":true,"# + tail)
        #expect(writer.cutCount == 1)
    }

    @Test func `a key that old rows would not tell is refused with what to run`() throws {
        let error = #expect(throws: CDCError.self) { _ = try table(twoColumns, key: ["note"]) }
        #expect(error?.hint == "ALTER TABLE public.t REPLICA IDENTITY FULL")
        #expect(throws: CDCError.self) { _ = try table(twoColumns, key: ["nothing"]) }
        _ = try table(twoColumns, identity: .full, key: ["note"])
    }

    @Test func `COPY's escapes are undone`() throws {
        var row = CopyRow()
        let line = Array("a\\tb\\\\c\t\\N\t\t\\n\\r\\b\\f\\vé\n".utf8)
        try row.read(line.span)
        let values = row.slots.map { $0.kind == .null ? nil : String(decoding: row.bytes[$0.range], as: UTF8.self) }
        #expect(values == ["a\tb\\c", nil, "", "\n\r\u{8}\u{c}\u{b}é"])
        for bad in ["a\\", "a\\x\n"] {
            let bytes = Array(bad.utf8)
            #expect(throws: CDCError.self) { try row.read(bytes.span) }
        }
    }

    @Test func `routes are read as they are written`() {
        #expect(
            TableRoute(table: "orders", destination: "shop.orders:order_id")
                == TableRoute(table: "orders", topic: "shop.orders", key: ["order_id"]))
        #expect(
            TableRoute(table: "shop.orders", destination: "a:customer,id@id")
                == TableRoute(schema: "shop", table: "orders", topic: "a", key: ["customer", "id"], partition: "id"))
        for (table, destination) in [
            ("", "a:b"), ("a.b.c", "a:b"), ("a", "b"), ("a", ":b"), ("a", "b:"), ("a", "b:c@d"), ("a", "b:c,@c"),
            (".a", "b:c"),
        ] {
            #expect(TableRoute(table: table, destination: destination) == nil, "\(table) \(destination)")
        }
    }
}
