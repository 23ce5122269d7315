import Foundation
import TestSupport
import Testing

@Suite(.serialized) struct TakeoverTests {
    @Test
    func `a device that goes to another chat server ends its session on the first with 4003, and misses nothing`()
        throws
    {
        let system = try StagedSystem()
        let second = try system.startChat("chat-2")
        let device = try system.python(
            "two_chat_servers.py", ["\(system.chatPort)", "\(second)", FanoutProcess.binary.path])
        #expect(device.waitForExit(seconds: 120) == 0, "\(device.text)\n\(system.text)")
        print(device.text)
    }
}
