import TestSupport
import Testing
import Wire

@testable import History

@Suite struct SinkBatchTests {
    /// A row's key as Postgres compares it, and where the row ends.
    private func row(_ bytes: [UInt8], at start: Int) -> (key: [UInt8], end: Int) {
        var (index, key) = (start + 2, [UInt8]())
        for field in 0..<7 {
            let length = bytes[index..<index + 4].reduce(0) { $0 << 8 | Int($1) }
            if field < 3 { key += bytes[index + 4..<index + 4 + length] }
            index += 4 + length
        }
        return (key, index)
    }

    @Test func `rows go to Postgres along its index, each as it is, whatever the order in which they came`() throws {
        var random = SeededGenerator.announced("rows of a batch")
        var batch = SinkBatch()
        var position = SinkBatch.Position(nextOffset: 0)
        let chats = (0..<7).map { _ in ChatID.random(using: &random) }
        for seq in 0..<60 as Range<Int64> {
            let letters = String(repeating: "x", count: Int.random(in: 0..<40, using: &random))
            let text = Array("{\"text\":\"\(letters)\"}".utf8)
            var message = IncomingMessage(
                id: .random(using: &random), chat: chats[Int.random(in: 0..<7, using: &random)],
                from: .random(using: &random), device: .random(), kind: .text)
            var reader = JSONReader(text.span)
            try reader.beginObject()
            _ = try reader.nextField()
            message.text = try reader.readString()
            var json = JSONWriter()
            message.writeAccepted(seq: seq, ts: 1000 + seq / 3, to: &json, source: text.span)
            let outcome = batch.add(
                message: json.bytes.span, partition: 0, offset: seq, recordMs: 1000, nowMs: 2000, oldestMs: 0,
                position: &position)
            #expect(outcome == .taken)
        }
        let sorted = batch.sortedRows()
        #expect(sorted.starts(with: Copy.header) && sorted.suffix(2) == Copy.trailer[...])
        var (index, keys, rows) = (Copy.header.count, [[UInt8]](), Set<[UInt8]>())
        while index < sorted.count - 2 {
            let (key, end) = row(sorted, at: index)
            keys.append(key)
            rows.insert(Array(sorted[index..<end]))
            index = end
        }
        #expect(zip(keys, keys.dropFirst()).allSatisfy { $0.lexicographicallyPrecedes($1) })
        #expect(rows == Set((0..<60).map { Array(batch.rows[batch.row($0)]) }) && rows.count == 60)
    }

    @Test(arguments: [
        (#""hello""#, "hello"), (#""two\nlines\u0000 \"q\"""#, "two lines  \"q\""), (#""""#, ""),
        ("\"" + String(repeating: "é", count: 130) + "\"", String(repeating: "é", count: 120)),
        ("\"" + String(repeating: "x", count: 119) + "👋👋\"", String(repeating: "x", count: 119) + "👋"),
    ])
    func `a preview is the beginning of a text, on one line`(json: String, preview: String) throws {
        let bytes = Array(json.utf8)
        var reader = JSONReader(bytes.span)
        #expect(SinkBatch.preview(try reader.readString(), in: bytes.span) == preview)
    }
}
