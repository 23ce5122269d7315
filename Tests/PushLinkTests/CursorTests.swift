import PushLink
import Testing
import Wire

struct CursorTests {
    @Test(arguments: [
        Cursor.start, Cursor(offset: 0, timestamp: 0), Cursor(offset: 1, timestamp: 1_763_000_000_123),
        Cursor(offset: .max, timestamp: 1 << 47), Cursor(offset: 1 << 60, timestamp: (1 << 48) - 1),
    ])
    func `comes back from its text`(cursor: Cursor) {
        #expect(cursor.text.utf8.count == Cursor.textCount)
        #expect(Cursor(cursor.text) == cursor)
    }

    @Test func `is refused when any letter is missing, foreign, or of another version`() {
        let text = Cursor(offset: 77, timestamp: 88).text
        #expect(Cursor(text.dropLast()) == nil)
        #expect(Cursor(text + "A") == nil)
        #expect(Cursor("") == nil)
        for index in 0..<20 {
            var letters = Array(text.utf8)
            letters[index] = 0x2b
            #expect(Cursor(String(decoding: letters, as: UTF8.self)) == nil)
        }
        #expect(Cursor("B" + text.dropFirst()) == nil)
    }

    @Test func `comes back from its text for many places`() {
        var generator = SplitMix(seed: 11)
        for _ in 0..<10_000 {
            let cursor = Cursor(
                offset: Int64.random(in: -1...(.max), using: &generator),
                timestamp: Int64.random(in: 0..<1 << 48, using: &generator))
            #expect(Cursor(cursor.text) == cursor)
        }
    }
}
