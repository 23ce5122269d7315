import TestSupport
import Testing
import Wire

@testable import StreamJoin

/// Records of `chat.members` in many forms: those of CDC, with columns of one's own, and what somebody else might write.
private struct RecordMaker {
    var random: SeededGenerator

    init(seed: UInt64) { random = SeededGenerator(seed) }

    mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

    mutating func record() -> [UInt8] {
        let isMember = chance(70)
        let op = ["r", "c", "u", "d"].randomElement(using: &random)!
        var row = [#""chat_id":"\#(ChatID.random(using: &random))""#]
        if isMember {
            row.append(#""user_id":"\#(UserID.random(using: &random))""#)
            if chance(90) { row.append(#""role":"\#(chance(50) ? "member" : "admin")""#) }
            row.append(#""joined_at":"2026-01-01 00:00:00.\#(Int.random(in: 100...999, using: &random))+00""#)
            row.append(#""muted_until":null"#)
        } else {
            row.append(#""title":\#(title())"#)
            row.append(#""kind":"group""#)
            row.append(#""meta_version":\#(number())"#)
        }
        if chance(10) { row.append(#""own":\#(number())"#) }
        if chance(3) { row.append(row.randomElement(using: &random)!) }
        if chance(10) { row.shuffle(using: &random) }
        let text = "{\(row.joined(separator: ","))}"
        let rows = op == "d" ? #""before":\#(text),"after":null"# : #""before":null,"after":\#(text)"#
        let transaction = chance(30) ? "null" : number()
        let source =
            #"{"db":"f","schema":"public","table":"\#(isMember ? "members" : "chats")","lsn":\#(number()),"txId":\#(transaction),"ts_ms":\#(number()),"snapshot":\#(chance(50))\#(chance(20) ? #","again":true"# : "")}"#
        return [UInt8](#"{"op":"\#(op)",\#(rows),"source":\#(source),"ts_ms":\#(number())}"#.utf8)
    }

    /// Of few lengths, so that records have the same form often.
    private mutating func number() -> String {
        if chance(3) {
            return ["0", "7", "-1", "-20", "1.5", "10e2", "1e-05", "9223372036854775807", "1000.05"]
                .randomElement(using: &random)!
        }
        return "\(Int.random(in: 100...999, using: &random))"
    }

    private mutating func title() -> String {
        if chance(10) { return "null" }
        let letters = ["a", "b", "7", " ", "{", ","]
        var text = ""
        for _ in 0..<4 { text += letters.randomElement(using: &random)! }
        if chance(20) { text = ["é12", "\\u00e9", "\\\"ab", "\\\\ab"].randomElement(using: &random)! }
        return "\"\(text)\""
    }

    /// The record with some bytes changed and none moved: what a form must not take for one of its own.
    mutating func damage(_ record: inout [UInt8]) {
        let bytes: [UInt8] = [0x22, 0x5c, 0x30, 0x39, 0x2c, 0x7b, 0x7d, 0x1f, 0x00, 0x80, 0xc3, 0xff, 0x2d, 0x41, 0x61]
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            let index = Int.random(in: record.indices, using: &random)
            record[index] = chance(70) ? bytes.randomElement(using: &random)! : .random(in: 0...255, using: &random)
        }
    }
}

@Suite struct RowChangeFormsTests {
    /// What the parser says, which is what holds.
    private func parsed(_ record: [UInt8]) -> RowChange? {
        guard case .row(let change) = try? MembershipRecord(decoding: record.span) else { return nil }
        return change
    }

    @Test func `a record that has a known form says what the parser reads from it, whatever it holds`() {
        let seed = SeededGenerator.freshSeed()
        print("seed \(seed) (forms of row changes; FANOUT_SEED=\(seed) runs it again)")
        var maker = RecordMaker(seed: seed)
        var forms = RowChangeForms()
        var found = 0
        var foundDamaged = 0
        for _ in 0..<30_000 {
            var record = maker.record()
            let isDamaged = maker.chance(50)
            if isDamaged { maker.damage(&record) }
            let change = parsed(record)
            if let known = forms.find(record.span) {
                #expect(known == change, "FANOUT_SEED=\(seed): \(String(decoding: record, as: UTF8.self))")
                if known != change { return }
                if isDamaged { foundDamaged += 1 } else { found += 1 }
            } else if let change {
                forms.learn(record.span, change)
            }
        }
        #expect(found > 500, "the forms are of use")
        #expect(foundDamaged > 0, "damage to what nobody reads was met")
    }

    @Test func `every byte of a record is looked at`() {
        var maker = RecordMaker(seed: 1)
        for _ in 0..<20 {
            var record = maker.record()
            guard let change = parsed(record) else { continue }
            var forms = RowChangeForms()
            forms.learn(record.span, change)
            for index in record.indices {
                let byte = record[index]
                for other in [0x00, 0x22, 0x30, 0x39, 0x3a, 0x5c, 0x2f, 0x61, 0x67, 0x7f, 0x80, 0xff] as [UInt8] {
                    record[index] = other
                    if let known = forms.find(record.span) { #expect(known == parsed(record)) }
                }
                record[index] = byte
            }
        }
    }

    @Test func `records as CDC writes them are known from the second on`() {
        var forms = RowChangeForms()
        let chat = ChatID.random()
        for (index, transaction) in [101, 902, 345].enumerated() {
            for (place, record) in [
                Rows.member(chat, .random(), "c", tx: Int64(transaction)),
                Rows.chat(chat, "u", version: Int64(transaction), tx: Int64(transaction)),
            ].enumerated() {
                let known = forms.find(record.value.span)
                #expect((known != nil) == (index > 0), "record \(place) of transaction \(transaction)")
                if let change = parsed(record.value) {
                    #expect(known == nil || known == change)
                    forms.learn(record.value.span, change)
                }
            }
        }
    }

    @Test func `a form that no longer comes makes room for another of its length`() {
        var forms = RowChangeForms()
        let chat = ChatID.random()
        func record(_ title: String) -> [UInt8] {
            [UInt8](
                #"{"op":"c","before":null,"after":{"chat_id":"\#(chat)","\#(title)":1},"source":{"table":"chats"}}"#
                    .utf8)
        }
        for title in ["one", "two"] {
            let record = record(title)
            for _ in 0...RowChangeForms.missesMax where forms.find(record.span) == nil {
                if let change = parsed(record) { forms.learn(record.span, change) }
            }
            #expect(forms.find(record.span) != nil)
        }
    }
}
