import PostgresClient
import TestSupport
import Testing
import Wire

@testable import CDC

/// Builds messages as the protocol's documentation lays them out.
struct Bytes {
    var bytes: [UInt8] = []

    static func kind(_ character: Character) -> Bytes { Bytes(bytes: [character.asciiValue!]) }

    func kind(_ character: Character) -> Bytes { Bytes(bytes: bytes + [character.asciiValue!]) }
    func int8(_ value: UInt8) -> Bytes { Bytes(bytes: bytes + [value]) }
    func int16(_ value: UInt16) -> Bytes { big(value) }
    func int32(_ value: UInt32) -> Bytes { big(value) }
    func int64(_ value: UInt64) -> Bytes { big(value) }
    func string(_ text: String) -> Bytes { Bytes(bytes: bytes + Array(text.utf8) + [0]) }
    func value(_ kind: Character, _ text: String) -> Bytes {
        Bytes(bytes: bytes + [kind.asciiValue!]).int32(UInt32(text.utf8.count)).raw(Array(text.utf8))
    }
    func raw(_ more: [UInt8]) -> Bytes { Bytes(bytes: bytes + more) }

    private func big(_ value: some FixedWidthInteger) -> Bytes {
        var copy = bytes
        copy.appendBigEndian(value)
        return Bytes(bytes: copy)
    }
}

@Suite struct PgOutputTests {
    private static let row = Bytes.kind("I").int32(7).kind("N").int16(3).value("t", "a").kind("n").kind("u")

    /// One of each kind, with what it must decode to. Those of `inStream` are read between Stream Start and Stop.
    static let samples: [(bytes: [UInt8], message: PgOutputMessage)] = [
        (
            Bytes.kind("B").int64(5).int64(6).int32(7).bytes,
            .begin(finalLSN: LSN(5), commitTimeUs: 6, xid: 7)
        ),
        (
            Bytes.kind("C").int8(0).int64(5).int64(9).int64(6).bytes,
            .commit(lsn: LSN(5), endLSN: LSN(9), commitTimeUs: 6)
        ),
        (Bytes.kind("O").int64(5).string("there").bytes, .origin(lsn: LSN(5), name: "there")),
        (
            Bytes.kind("R").int32(7).string("public").string("t").kind("d").int16(2)
                .int8(1).string("id").int32(2950).int32(.max).int8(0).string("n\u{e9}").int32(25).int32(4).bytes,
            .relation(
                Relation(
                    id: 7, schema: "public", name: "t", identity: .default,
                    columns: [
                        .init(isKey: true, name: "id", type: 2950),
                        .init(isKey: false, name: "n\u{e9}", type: 25, modifier: 4),
                    ]))
        ),
        (
            Bytes.kind("Y").int32(70_000).string("public").string("mood").bytes,
            .type(oid: 70_000, schema: "public", name: "mood")
        ),
        (row.bytes, .insert(relation: 7, new: Tuple(columns: 3, bytes: 8..<16))),
        (
            Bytes.kind("U").int32(7).kind("N").int16(1).value("t", "").bytes,
            .update(relation: 7, old: nil, new: Tuple(columns: 1, bytes: 8..<13))
        ),
        (
            Bytes.kind("U").int32(7).kind("K").int16(1).value("t", "a").kind("N").int16(1).value("b", "b").bytes,
            .update(
                relation: 7, old: OldTuple(isKeyOnly: true, tuple: Tuple(columns: 1, bytes: 8..<14)),
                new: Tuple(columns: 1, bytes: 17..<23))
        ),
        (
            Bytes.kind("U").int32(7).kind("O").int16(0).kind("N").int16(0).bytes,
            .update(
                relation: 7, old: OldTuple(isKeyOnly: false, tuple: Tuple(columns: 0, bytes: 8..<8)),
                new: Tuple(columns: 0, bytes: 11..<11))
        ),
        (
            Bytes.kind("D").int32(7).kind("K").int16(1).value("t", "a").bytes,
            .delete(relation: 7, old: OldTuple(isKeyOnly: true, tuple: Tuple(columns: 1, bytes: 8..<14)))
        ),
        (
            Bytes.kind("D").int32(7).kind("O").int16(1).kind("n").bytes,
            .delete(relation: 7, old: OldTuple(isKeyOnly: false, tuple: Tuple(columns: 1, bytes: 8..<9)))
        ),
        (
            Bytes.kind("T").int32(2).int8(3).int32(7).int32(8).bytes,
            .truncate(relations: [7, 8], cascade: true, restartIdentity: true)
        ),
        (
            Bytes.kind("M").int8(1).int64(5).string("p").int32(2).raw([1, 2]).bytes,
            .message(transactional: true, lsn: LSN(5), prefix: "p", content: 16..<18)
        ),
        (
            Bytes.kind("c").int32(3).int8(0).int64(5).int64(6).int64(7).bytes,
            .streamCommit(xid: 3, lsn: LSN(5), endLSN: LSN(6), commitTimeUs: 7)
        ),
        (Bytes.kind("A").int32(3).int32(4).bytes, .streamAbort(xid: 3, subXID: 4)),
        (Bytes.kind("S").int32(3).int8(1).bytes, .streamStart(xid: 3, isFirst: true)),
    ]

    @Test(arguments: samples.indices)
    func `every kind of message is decoded, and no other length of it`(index: Int) throws {
        let (bytes, message) = Self.samples[index]
        var decoder = PgOutputDecoder()
        let decoded = try decoder.decode(bytes.span)
        #expect(decoded.message == message && decoded.xid == nil)
        for count in 0..<bytes.count {
            var decoder = PgOutputDecoder()
            #expect(throws: PgOutputError.self, "\(count) of \(bytes.count) bytes") {
                _ = try decoder.decode(bytes.span.extracting(0..<count))
            }
        }
        var longer = bytes
        longer.append(0)
        decoder = PgOutputDecoder()
        let error = #expect(throws: PgOutputError.self) { _ = try decoder.decode(longer.span) }
        #expect(error?.code == .trailingBytes)
    }

    @Test func `inside a stream a message names its transaction`() throws {
        var decoder = PgOutputDecoder()
        let start = Bytes.kind("S").int32(3).int8(1).bytes
        let insert = Bytes.kind("I").int32(99).int32(7).kind("N").int16(1).value("t", "a").bytes
        let stop = Bytes.kind("E").bytes
        _ = try decoder.decode(start.span)
        let decoded = try decoder.decode(insert.span)
        #expect(decoded.xid == 99)
        #expect(decoded.message == .insert(relation: 7, new: Tuple(columns: 1, bytes: 12..<18)))
        for count in 0..<insert.count {
            #expect(throws: PgOutputError.self) { _ = try decoder.decode(insert.span.extracting(0..<count)) }
        }
        // Transactions do not nest.
        for bytes in [start, Self.samples[0].bytes, Self.samples[1].bytes] {
            #expect(throws: PgOutputError(.outOfPlace, at: 0)) { _ = try decoder.decode(bytes.span) }
        }
        _ = try decoder.decode(stop.span)
        #expect(throws: PgOutputError(.outOfPlace, at: 0)) { _ = try decoder.decode(stop.span) }
    }

    @Test func `what the protocol does not have is refused`() {
        let bad: [[UInt8]] = [
            [], Bytes.kind("Z").bytes,
            Bytes.kind("I").int32(7).kind("X").int16(0).bytes,
            Bytes.kind("I").int32(7).kind("N").int16(1).kind("x").bytes,
            Bytes.kind("I").int32(7).kind("N").int16(1).kind("t").int32(.max).bytes,
            Bytes.kind("I").int32(7).kind("N").int16(1).kind("t").int32(0x8000_0000).bytes,
            Bytes.kind("D").int32(7).kind("N").int16(0).bytes,
            Bytes.kind("C").int8(1).int64(5).int64(9).int64(6).bytes,
            Bytes.kind("T").int32(.max).int8(0).int32(7).bytes,
            Bytes.kind("T").int32(0).int8(4).bytes,
            Bytes.kind("R").int32(7).string("public").string("t").kind("?").int16(0).bytes,
            Bytes.kind("O").int64(5).raw([0xff, 0xfe, 0]).bytes,
            Bytes.kind("M").int8(2).int64(5).string("p").int32(0).bytes,
        ]
        for bytes in bad {
            var decoder = PgOutputDecoder()
            #expect(throws: PgOutputError.self, "\(bytes)") { _ = try decoder.decode(bytes.span) }
        }
    }

    @Test func `no bytes at all make the decoder read past them`() {
        var random = SeededGenerator.announced("pgoutput garbage")
        for _ in 0..<20_000 {
            let sample = Self.samples.randomElement(using: &random)!.bytes
            var bytes = sample
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            bytes = Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &random)))
            var decoder = PgOutputDecoder()
            _ = try? decoder.decode(bytes.span)
        }
    }

    @Test func `the frames around the messages are decoded, and no other length of them`() throws {
        let data = Bytes.kind("w").int64(5).int64(6).int64(7).raw([1]).bytes
        #expect(try ReplicationMessage.decode(data.span) == .data(start: LSN(5), serverEnd: LSN(6), payload: 25))
        for count in 0..<25 {
            #expect(throws: PgOutputError.self) { _ = try ReplicationMessage.decode(data.span.extracting(0..<count)) }
        }
        let keepalive = Bytes.kind("k").int64(6).int64(7).int8(1).bytes
        #expect(try ReplicationMessage.decode(keepalive.span) == .keepalive(serverEnd: LSN(6), replyRequested: true))
        for count in 0..<keepalive.count {
            #expect(throws: PgOutputError.self) {
                _ = try ReplicationMessage.decode(keepalive.span.extracting(0..<count))
            }
        }
        for bytes in [keepalive + [0], Bytes.kind("x").bytes] {
            #expect(throws: PgOutputError.self) { _ = try ReplicationMessage.decode(bytes.span) }
        }
    }
}
