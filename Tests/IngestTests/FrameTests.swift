@testable import Ingest
import Testing
import Wire

@Suite struct FrameTests {
    let id = MessageID.random()
    let chat = ChatID.random()

    private func decode(_ text: String) -> Result<ClientFrame, ClientFrame.Refusal> {
        do { return .success(try ClientFrame(decoding: Array(text.utf8).span)) } catch { return .failure(error) }
    }

    private func refusal(_ text: String) -> ClientFrame.Refusal? {
        if case .failure(let refusal) = decode(text) { return refusal }
        return nil
    }

    @Test func `a message's parts are found, whatever their order`() throws {
        let text =
            #"{"text":"hi","reply_to":4,"chat":"\#(chat)","attachments":[{"a":1}],"x":{"y":[]},"id":"\#(id)","type":"send"}"#
        guard case .success(.send(let message)) = decode(text) else {
            Issue.record("not a message")
            return
        }
        #expect(message.id == id && message.chat == chat && message.kind == .text && message.replyTo == 4)
        #expect(message.attachments != nil && message.text != nil)
    }

    @Test(arguments: [
        "", "null", "[]", "{}", "{", #"{"type":"send"}"#, #"{"type":"nonsense"}"#, #"{"type":5}"#,
        #"{"type":"send","id":"x","chat":"y","text":"z"}"#, #"{"type":"read","chat":"y"}"#, #"{"type":"ack"}"#,
        #"{"type":"ack","cursor":"?"}"#, #"{"type":"ping","n":"1"}"#, #"{"type":"ping"} {"#,
        #"{"type":"watch","user":"'; DROP TABLE users; --"}"#,
    ]) func `what is no frame is refused as such`(text: String) {
        #expect(refusal(text)?.code == .badFrame)
    }

    @Test func `a refused message is named, if its id could be read`() {
        #expect(refusal(#"{"type":"send","id":"\#(id)","text":"x"}"#)?.id == id)
        #expect(refusal(#"{"type":"send","id":"\#(id)","chat":"\#(chat)"}"#)?.message == "send needs text")
        #expect(refusal(#"{"type":"edit","id":"\#(id)","chat":"\#(chat)","text":"x"}"#)?.message == "edit needs seq")
        #expect(refusal(#"{"type":"delete","id":"\#(id)","chat":"\#(chat)","seq":-1}"#)?.code == .badFrame)
    }

    @Test func `a text has at most ten thousand characters, however they are written`() {
        func send(_ text: String) -> String {
            #"{"type":"send","id":"\#(id)","chat":"\#(chat)","text":"\#(text)"}"#
        }
        #expect(refusal(send(String(repeating: "ä", count: 10_000))) == nil)
        #expect(refusal(send(String(repeating: #"\u00e4"#, count: 10_000))) == nil)
        #expect(refusal(send(String(repeating: "x", count: 10_001)))?.code == .tooLarge)
        #expect(refusal(send(""))?.code == .badFrame)
    }

    @Test func `a NUL is refused in a text and in attachments, and an escaped backslash before u0000 is none`() {
        func send(_ text: String, _ attachments: String = "[]") -> ClientFrame.Refusal? {
            refusal(
                #"{"type":"send","id":"\#(id)","chat":"\#(chat)","text":"\#(text)","attachments":\#(attachments)}"#)
        }
        #expect(send(#"a\u0000b"#)?.message == #"text holds a NUL (\u0000)"#)
        #expect(send(#"\\\u0000"#)?.code == .badFrame)
        #expect(send("x", #"[{"name":"\u0000"}]"#)?.message == #"attachments hold a NUL (\u0000)"#)
        #expect(send("x", #"[{"a":{"\u0000":1}}]"#)?.id == id)
        #expect(send(#"\\u0000 \u0001 u0000"#, #"[{"name":"\\u0000"}]"#) == nil)
        #expect(
            refusal(#"{"type":"edit","id":"\#(id)","chat":"\#(chat)","seq":1,"text":"\u0000"}"#)?.code == .badFrame)
    }

    @Test(arguments: ["[null]", "[1]", #"["x"]"#, "[[]]", "[{},null]", "{}", "5"])
    func `attachments are objects`(attachments: String) {
        func frame(_ attachments: String) -> String {
            #"{"type":"send","id":"\#(id)","chat":"\#(chat)","text":"x","attachments":\#(attachments)}"#
        }
        #expect(refusal(frame(attachments))?.code == .badFrame)
        #expect(refusal(frame(#"[{}, {"a":[null]} ]"#)) == nil)
    }

    @Test func `a bucket gives its burst, then one after the other`() {
        let limit = RateLimit(burst: 10, periodMs: 10_000)
        var bucket = TokenBucket(limit, nowMs: 0)
        for _ in 0..<10 { #expect(bucket.take(limit, nowMs: 0) == nil) }
        #expect(bucket.take(limit, nowMs: 0) == 1000)
        #expect(bucket.take(limit, nowMs: 400) == 600)
        #expect(bucket.take(limit, nowMs: 1000) == nil)
        #expect(bucket.take(limit, nowMs: 1000) == 1000)
        #expect(!bucket.isFull(limit, nowMs: 9_000))
        #expect(bucket.isFull(limit, nowMs: 11_000))
        // A clock set back neither gives nor takes.
        #expect(bucket.take(limit, nowMs: 500) == 1000)
    }

    @Test func `a number of a session is not given to another soon`() {
        var seen: Set<UInt32> = []
        var numbers = SessionNumbers()
        for _ in 0..<20_000 {
            let number = numbers.take()
            #expect(seen.insert(number).inserted)
            numbers.free(number)
        }
    }

    @Test func `a member event is read as far as it matters`() {
        let user = UserID.random()
        let event =
            #"{"type":"member","chat":"\#(chat)","user":"\#(user)","change":"removed","meta_version":7,"cursor":"x"}"#
        let change = MembershipChange(event: Array(event.utf8).span)
        #expect(change?.chat == chat && change?.user == user && change?.isMember == false && change?.metaVersion == 7)
        #expect(MembershipChange(event: Array(#"{"type":"message"}"#.utf8).span) == nil)
    }

    @Test func `of many changes at once the version is read, and nobody's membership`() {
        let event =
            #"{"type":"members_changed","chat":"\#(chat)","added":120,"removed":0,"roles":0,"meta_version":8,"cursor":"x"}"#
        let change = MembershipChange(event: Array(event.utf8).span)
        #expect(change?.chat == chat && change?.user == nil && change?.metaVersion == 8)
        #expect(
            MembershipChange(event: Array(#"{"chat":"\#(chat)","change":"removed","meta_version":8}"#.utf8).span) == nil
        )
    }
}
