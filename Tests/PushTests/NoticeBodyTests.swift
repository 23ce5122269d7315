import Foundation
import Push
import Testing
import Wire

@Suite struct NoticeBodyTests {
    private let user = UserID(Wire.UUID(high: 1, low: 1))
    private let other = UserID(Wire.UUID(high: 2, low: 2))
    private let chat = PushLog.chat

    private func event(_ quotedText: String) -> [UInt8] {
        Array(#"{"type":"message","seq":7,"from":"\#(other)","text":\#(quotedText),"more":[1]}"#.utf8)
    }

    private func body(_ quotedText: String, showsPreview: Bool = true) -> String {
        let part = Notice.ChatPart(
            chat: chat, count: 3, last: event(quotedText), lastSeq: 7, newestMs: 5, isMention: false,
            record: RecordPosition(partition: 2, offset: 9))
        var coalescer = Coalescer()
        coalescer.add(part, for: user, nowMs: 0)
        var json = JSONWriter()
        for notice in coalescer.take(nowMs: 10_000, limit: 1) {
            NoticeBody.write(notice, showsPreview: showsPreview, nowMs: 42, to: &json)
        }
        return String(decoding: json.bytes, as: UTF8.self)
    }

    private func preview(_ quotedText: String) throws -> String {
        struct Body: Decodable {
            struct Chat: Decodable { let preview: String }
            let chats: [Chat]
        }
        return try JSONDecoder().decode(Body.self, from: Data(body(quotedText).utf8)).chats[0].preview
    }

    @Test func `a notice is what docs/push says, and without its texts when they are to stay here`() {
        let start =
            #"{"id":"\#(user)/2/9-9","user":"\#(user)","count":3,"ts":42,"chats":[{"chat":"\#(chat)","count":3,"new":3,"seq":7,"from":"\#(other)""#
        #expect(body(#""hello""#) == start + #","preview":"hello"}]}"#)
        #expect(body(#""hello""#, showsPreview: false) == start + "}]}")
        #expect(body("5") == start + "}]}", "an event with another form of text is told without it")
    }

    @Test func `a preview is a text's beginning, cut between characters`() throws {
        let flag = "🇳🇱"
        #expect(try preview(#""a \"b\" \u00e9\n""#) == "a \"b\" é\n")
        let longest = String(repeating: "x", count: 160)
        #expect(try preview("\"\(longest)\"") == longest)
        #expect(try preview("\"\(longest)y\"") == longest + "…")
        #expect(try preview("\"\(longest.dropLast())\(flag)\(flag)\"") == longest.dropLast() + flag + "…")
        #expect(try preview("\"\\u00e9\(longest)\"") == "é" + longest.dropLast() + "…")
    }

    @Test func `a mention is an at sign and the person's id, however it is escaped`() {
        func isMention(_ quotedText: String) -> Bool {
            let bytes = event(quotedText)
            return LastEvent(bytes.span).mentions(user, in: bytes.span)
        }
        #expect(isMention("\"@\(user)\"") && isMention("\"hey @@\(user)!\"") && isMention("\"\\u0040\(user)\""))
        #expect(isMention("\"@\(other) @\(user)\""))
        for text in ["", "@", "\(user)", "@\(other)", "@\(user)".dropLast().description, "@ \(user)"] {
            #expect(!isMention("\"\(text)\""), "\(text)")
        }
    }
}
