import Delivery
import Testing

struct SourceDedupeTests {
    private func admit(_ dedupe: inout SourceDedupe, _ source: String) -> Bool { dedupe.admit(Array(source.utf8).span) }

    @Test func `drops what is not above the highest seen from its source`() {
        var dedupe = SourceDedupe()
        let answers = [
            "chat.incoming/3/10", "chat.incoming/3/11", "chat.incoming/3/10", "chat.incoming/3/11",
            "chat.incoming/4/2", "chat.signals/3/5", "chat.incoming/3/12", "chat.signals/3/5",
        ].map { admit(&dedupe, $0) }
        #expect(answers == [true, true, false, false, true, true, true, false])
    }

    @Test(arguments: [
        "", "/", "//", "chat/1", "chat/1/", "chat/x/1", "chat/1/x", "/1/2", "chat/1/99999999999999999999",
        "chat/99999999/1", "chat/-1/2", "1/2", "\u{0}\u{0}/\u{0}/1",
    ])
    func `lets through what has no source it can read, every time`(source: String) {
        var dedupe = SourceDedupe()
        #expect(admit(&dedupe, source))
        #expect(admit(&dedupe, source))
        #expect(dedupe == SourceDedupe())
    }

    @Test func `comes back from its text, and refuses any other`() {
        var dedupe = SourceDedupe()
        for source in ["chat.incoming/3/10", "chat.incoming/15/999999999", "chat.signals/0/0"] {
            _ = admit(&dedupe, source)
        }
        #expect(dedupe.text == "chat.incoming=3:10,15:999999999;chat.signals=0:0")
        var restored = SourceDedupe(text: dedupe.text)
        #expect(restored == dedupe)
        if var copy = restored {
            #expect(!admit(&copy, "chat.incoming/3/10") && admit(&copy, "chat.incoming/3/11"))
            restored = copy
        }
        #expect(SourceDedupe(text: "") == SourceDedupe())
        for text in ["x", "=1:2", "a=1", "a=1:x", "a=-1:2", "a=70000:1"] { #expect(SourceDedupe(text: text) == nil) }
    }

    @Test func `takes over what another has seen`() {
        var first = SourceDedupe()
        var second = SourceDedupe()
        for source in ["a/1/10", "b/2/5"] { _ = admit(&first, source) }
        for source in ["b/2/7", "b/9/1", "a/1/3"] { _ = admit(&second, source) }
        first.merge(second)
        let answers = ["a/1/10", "b/2/7", "b/9/1", "a/1/11", "b/2/8"].map { admit(&first, $0) }
        #expect(answers == [false, false, false, true, true])
    }

    @Test func `a topic made again is another source, whatever was seen of the old one`() {
        var dedupe = SourceDedupe()
        let answers = [
            "in@aaaaaaaa/0/100", "in@aaaaaaaa/1/7", "in@bbbbbbbb/0/0", "in@bbbbbbbb/0/1", "in@bbbbbbbb/0/1",
            // What the join had still under way, and a repeat of it.
            "in@aaaaaaaa/0/101", "in@aaaaaaaa/0/101", "in@bbbbbbbb/0/2",
        ].map { admit(&dedupe, $0) }
        #expect(answers == [true, true, true, true, false, true, false, true])
        // Of a topic made again and again the last six are kept.
        for run in 1...5 { #expect(admit(&dedupe, "in@0000000\(run)/0/\(run)")) }
        #expect(
            dedupe.text
                == "in@bbbbbbbb=0:2;in@00000001=0:1;in@00000002=0:2;in@00000003=0:3;in@00000004=0:4;in@00000005=0:5")
        #expect(SourceDedupe(text: dedupe.text) == dedupe)
    }

    @Test func `what was kept before sources had tags belongs to the first tag that is seen`() throws {
        var dedupe = try #require(SourceDedupe(text: "in=0:10,1:3"))
        let answers = ["in@aaaaaaaa/0/10", "in@aaaaaaaa/0/11", "in@bbbbbbbb/0/0"].map { admit(&dedupe, $0) }
        #expect(answers == [false, true, true])
        // Also where records with tags were read before it was merged.
        var later = SourceDedupe()
        #expect(admit(&later, "in@aaaaaaaa/0/5"))
        later.merge(try #require(SourceDedupe(text: "in=0:10,1:3")))
        #expect(later.text == "in@aaaaaaaa=0:10,1:3")
    }
}
