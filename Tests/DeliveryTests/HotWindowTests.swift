import Delivery
import PushLink
import Testing
import Wire

/// Everything ever appended, searched from the front.
private struct NaiveLog {
    struct Entry {
        var offset: Int64
        var users: Set<Int>
        var chat: Int?
        var frame: String
    }

    var entries: [Entry] = []

    func events(of user: Int, chats: Set<Int>, after: Int64, through: Int64) -> [String] {
        entries.filter { entry in
            entry.offset > after && entry.offset <= through
                && (entry.users.contains(user) || entry.chat.map { chats.contains($0) } == true)
        }.map(\.frame)
    }
}

struct HotWindowTests {
    private func append(
        _ window: inout HotWindow, _ cursor: Cursor, _ event: String, users: [Int] = [], largeChat: Int? = nil
    ) {
        window.append(cursor, kind: .message, event: Array(event.utf8).span)
        for user in users { window.addRecipient(user: user) }
        if let largeChat { window.addRecipients(largeChat: chat(largeChat)) }
        window.trim(before: 0)
    }

    /// Every page until the last; `nil` when it was refused.
    private func fill(
        _ window: HotWindow, _ user: Int, _ chats: [Int] = [], after: Cursor, through: Int64, bytesMax: Int = 100
    ) -> (frames: [String], refusal: FillRefusal?) {
        var frames: [String] = []
        var place = after
        while true {
            let answer = window.fill(
                user: user, largeChats: chats.map { ChatStay(chat($0)) }, after: place, through: through,
                bytesMax: bytesMax
            ) { _, _, payload in frames.append(String(showing: payload)) }
            switch answer {
            case .refused(let reason): return (frames, reason)
            case .served(let upTo, true):
                #expect(upTo.offset == max(through, after.offset))
                return (frames, nil)
            case .served(let upTo, false):
                #expect(upTo.offset > place.offset)
                place = upTo
            }
        }
    }

    @Test func `makes the device frame by adding the cursor to the event`() {
        var window = HotWindow(bytesMax: 1 << 20, start: .start)
        append(&window, at(0), #"{"type":"message","text":"hi"}"#, users: [1])
        #expect(
            window.withLastPayload { String(showing: $0) }
                == #"{"type":"message","text":"hi","cursor":"\#(at(0).text)"}"#)
        append(&window, at(1), "{}", users: [1])
        #expect(window.withLastPayload { String(showing: $0) } == #"{"cursor":"\#(at(1).text)"}"#)
        append(&window, at(2), "{ }", users: [1])
        #expect(window.withLastPayload { String(showing: $0) } == #"{ "cursor":"\#(at(2).text)"}"#)
    }

    @Test func `serves exactly what was missed, in order, page by page`() {
        var window = HotWindow(bytesMax: 1 << 20, start: .start)
        for offset in 0..<10 { append(&window, at(Int64(offset)), #"{"n":\#(offset)}"#, users: [offset % 2]) }
        let missed = fill(window, 1, after: at(2), through: 8, bytesMax: 60)
        #expect(missed.refusal == nil)
        #expect(missed.frames.map { $0.prefix(6) } == [#"{"n":3"#, #"{"n":5"#, #"{"n":7"#])
        #expect(fill(window, 5, after: at(2), through: 8).frames.isEmpty)
    }

    @Test func `joins a user's own events and its large chats in the order of the log`() {
        var window = HotWindow(bytesMax: 1 << 20, start: .start)
        append(&window, at(0), #"{"n":0}"#, users: [1])
        append(&window, at(1), #"{"n":1}"#, largeChat: 9)
        append(&window, at(2), #"{"n":2}"#, users: [1])
        append(&window, at(3), #"{"n":3}"#, largeChat: 8)
        let missed = fill(window, 1, [9], after: .start, through: 3)
        #expect(missed.frames.map { $0.prefix(6) } == [#"{"n":0"#, #"{"n":1"#, #"{"n":2"#])
    }

    @Test func `says so when the cursor is older than what it holds, and serves who missed nothing all the same`() {
        var window = HotWindow(bytesMax: 1_000, start: .start)
        append(&window, at(0), #"{"n":0}"#, users: [1])
        for offset in 1..<100 { append(&window, at(Int64(offset)), #"{"n":\#(offset)}"#, users: [2]) }
        #expect(window.byteCount <= 1_000)
        #expect(window.start.offset > 50)
        #expect(fill(window, 2, after: at(10), through: 99).refusal == .older)
        // User 1 has had nothing since offset 0, and a stranger never had anything.
        #expect(fill(window, 1, after: at(10), through: 99).refusal == nil)
        #expect(fill(window, 1, after: .start, through: 99).refusal == .older)
        #expect(fill(window, 3, after: at(10), through: 99).refusal == nil)
        #expect(fill(window, 2, after: window.start, through: 99).refusal == nil)
    }

    @Test func `knows nothing of what lay before it was made`() {
        var window = HotWindow(bytesMax: 1_000, start: at(500))
        append(&window, at(501), "{}", users: [2])
        #expect(fill(window, 1, after: at(499), through: 501).refusal == .older)
        #expect(fill(window, 1, after: at(500), through: 501).refusal == nil)
    }

    @Test func `recognises a cursor of another life of the topic`() {
        var window = HotWindow(bytesMax: 1 << 20, start: .start)
        for offset in 0..<10 { append(&window, at(Int64(offset)), "{}", users: [1]) }
        #expect(fill(window, 1, after: Cursor(offset: 5, timestamp: 77), through: 9).refusal == .foreign)
        #expect(fill(window, 1, after: at(5), through: 9).refusal == nil)
    }

    @Test func `lets go of what is too old, but for the record in hand`() {
        var window = HotWindow(bytesMax: 1 << 20, start: .start)
        for offset in 0..<10 { append(&window, at(Int64(offset)), "{}", users: [1]) }
        window.trim(before: 1_007)
        #expect(window.start == at(6) && window.recordCount == 3)
        window.trim(before: .max)
        #expect(window.start == at(8) && window.recordCount == 1)
    }

    @Test(arguments: 0..<20)
    func `agrees with a search of the whole log over random histories`(round: Int) {
        let seed = UInt64.random(in: 0...UInt64.max) &+ UInt64(round)
        var random = SplitMix(seed: seed)
        let first = Int64(random.below(5))
        var window = HotWindow(bytesMax: 4_000 + random.below(100_000), start: at(first - 1))
        var log = NaiveLog()
        var offset = first
        for _ in 0..<600 {
            let size = random.chance(2) ? random.below(70_000) : random.below(200)
            let event = #"{"n":\#(offset),"text":"\#(String(repeating: "x", count: size))"}"#
            let isLarge = random.chance(20)
            let users = isLarge ? [] : Array(Set((0..<random.below(6)).map { _ in random.below(30) }))
            let large = isLarge ? random.below(4) : nil
            append(&window, at(offset), event, users: users, largeChat: large)
            log.entries.append(
                .init(
                    offset: offset, users: Set(users), chat: large,
                    frame: String(event.dropLast()) + #","cursor":"\#(at(offset).text)"}"#))
            // Duplicates leave holes.
            let last = offset
            offset += Int64(1 + (random.chance(10) ? random.below(3) : 0))
            let asked = random.below(31)
            let chats = Set((0..<random.below(3)).map { _ in random.below(4) })
            let behind = random.chance(50) ? random.below(20) : random.below(600)
            let after = max(-1, last - Int64(behind))
            let through = random.chance(50) ? last : min(last, after + Int64(random.below(50)))
            let answer = fill(
                window, asked, Array(chats), after: at(after), through: through, bytesMax: 1 + random.below(1_000))
            let expected = log.events(of: asked, chats: chats, after: after, through: through)
            if let refusal = answer.refusal {
                // Refused only if something may have been missed that has left.
                #expect(refusal == .older && answer.frames.isEmpty, "seed \(seed)")
                #expect(after < window.start.offset, "seed \(seed)")
                let gone = log.events(of: asked, chats: chats, after: after, through: window.start.offset)
                #expect(!gone.isEmpty || after < first - 1, "seed \(seed)")
            } else {
                #expect(answer.frames == expected, "seed \(seed)")
            }
        }
    }
}
