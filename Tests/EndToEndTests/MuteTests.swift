import Foundation
import TestSupport
import Testing

@Suite(.serialized) struct MuteTests {
    @Test func `who has muted a chat is in chat.push and is not told, and the device gets every message all the same`()
        throws
    {
        let system = try StagedSystem()
        let people = try system.python("muted_members.py", ["\(system.chatPort)", FanoutProcess.binary.path])
        #expect(people.waitForExit(seconds: 180) == 0, "\(people.text)\n\(system.text)")
        print(people.text)
    }
}
